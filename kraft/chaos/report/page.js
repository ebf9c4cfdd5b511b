"use strict";
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const text = event.target instanceof Element && event.target.getAttribute("data-t");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4)) + "px";
  tip.style.top = (event.clientY + box.height + 20 > innerHeight ? event.clientY - box.height - 8 : event.clientY + 16) + "px";
});
const filter = document.getElementById("filter");
const spaced = [...document.querySelectorAll("#events > div")].map((row) => [row, [...row.children].map((cell) => cell.textContent).join(" ").toLowerCase()]);
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [row, text] of spaced) {
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  document.getElementById("matches").textContent = shown.toLocaleString("en") + " events";
});
