// Progress as it comes, and forms that are sent once. Without this script every page still shows all that it has.
"use strict";

for (const place of document.querySelectorAll("[data-live]")) {
  const state = document.querySelector("[data-live-state]");
  const source = new EventSource(place.dataset.live);
  // The piece is a template of the server, which escaped all in it.
  source.addEventListener("progress", (event) => {
    place.innerHTML = event.data;
    state.textContent = "";
  });
  source.addEventListener("open", () => { state.textContent = ""; });
  source.addEventListener("error", () => { state.textContent = "The server does not answer: this is what was known last."; });
}

for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) {
      button.setAttribute("aria-disabled", "true");
    }
  });
  form.addEventListener("click", (event) => {
    if (event.target.closest("[aria-disabled=true]")) {
      event.preventDefault();
    }
  });
}

// Who comes back by the browser's history may send a form again.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[aria-disabled]")) {
    button.removeAttribute("aria-disabled");
  }
});
