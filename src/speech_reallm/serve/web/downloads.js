// Copy and the download buttons.

import { FORMATS, toText } from "./formats.js";

/** onSaved(text): the transcript has been copied or downloaded; what to say about it. */
export function takeAlong(transcript, onSaved) {
  const copy = document.getElementById("copy");
  copy.onclick = async () => {
    const text = toText(transcript);
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyOldWay(text);
    }
    copy.textContent = "Copied";
    onSaved("Copied.");
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  };
  for (const button of document.querySelectorAll("[data-format]")) {
    button.onclick = () => onSaved(`Saved as ${download(transcript, button.dataset.format)}.`);
  }
}

/** Returns the file's name. */
function download(transcript, suffix) {
  const { type, write } = FORMATS[suffix];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(transcript)], { type: `${type};charset=utf-8` }));
  link.download = `${stem(transcript.name)}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return link.download;
}

function stem(name) {
  if (name) return name.replace(/\.[^.]*$/, "") || "transcript";
  const local = new Date(Date.now() - new Date().getTimezoneOffset() * 60000);
  return `transcript-${local.toISOString().slice(0, 16).replace("T", "-").replace(":", "")}`;
}

/** Pages without https have no clipboard of their own. */
function copyOldWay(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
