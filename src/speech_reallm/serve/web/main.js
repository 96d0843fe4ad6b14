// The page, or with ?overlay in its address the text alone, to be laid over a picture.

const overlay = new URLSearchParams(location.search).has("overlay");
document.documentElement.classList.toggle("overlay", overlay);
await (overlay ? import("./overlay.js") : import("./app.js"));
