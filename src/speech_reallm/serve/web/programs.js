// The address of this server, in place of the usual one.

const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
for (const span of document.querySelectorAll("[data-http]")) span.textContent = base;
for (const span of document.querySelectorAll("[data-ws]")) span.textContent = base.replace(/^http/, "ws");
