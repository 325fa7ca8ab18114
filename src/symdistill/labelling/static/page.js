// Keys, and the next line without a page load. Every button works without this file, too.
"use strict";

let waiting = false; // for the reply to an answer: until it is there, no further one is given

function buttonFor(event) {
  const named = (key) =>
    [...document.querySelectorAll("[data-keys]")].find((one) => one.dataset.keys.split(" ").includes(key));
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // Where the layout has no Latin letters, or digits only with shift, the key's place counts.
  return named(key) ?? (/^[a-z]$/.test(key) ? undefined : named(event.code.replace(/^(Key|Digit)/, "").toLowerCase()));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.closest("textarea, input:not([type=checkbox])");
  if (typing) {
    if (typing.matches("textarea") && (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey))) {
      event.preventDefault();
      document.querySelector(".focus").focus();
    }
    return;
  }
  const button = buttonFor(event);
  // A key held down is one answer.
  if (button || (event.repeat && (event.key === "Enter" || event.key === " "))) {
    if (button || event.repeat) event.preventDefault();
    if (!button || event.repeat) return;
    if (button.matches(".note[open] summary")) writeNote();
    else button.click();
  }
});

// A double click is one answer: its second click would fall on the next line.
document.addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest("form[method=post] button")) event.preventDefault();
});

document.addEventListener("toggle", (event) => {
  if (event.target.matches(".note[open]")) writeNote();
}, true);

function writeNote() {
  document.querySelector(".note textarea").focus();
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  event.preventDefault();
  if (waiting) return;
  waiting = true;
  const alert = document.querySelector(".alert");
  try {
    const fields = new URLSearchParams(new FormData(form, event.submitter));
    const reply = await fetch(form.action, { method: "POST", body: fields });
    show(new DOMParser().parseFromString(await reply.text(), "text/html"));
  } catch {
    alert.hidden = false;
  } finally {
    waiting = false;
  }
});

function show(page) {
  const open = [...document.querySelectorAll("details[id][open]")].map((one) => one.id);
  const unfolded = document.getElementById("unfold")?.checked;
  document.title = page.title;
  document.body.replaceWith(page.body);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (unfolded && document.getElementById("unfold")) document.getElementById("unfold").checked = true;
  document.querySelector(".focus")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}
