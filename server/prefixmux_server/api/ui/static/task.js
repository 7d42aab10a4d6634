// One task: activate, pin, delete. The page is drawn anew by the server after each.
import { call, explain, post } from "./common.js";

const said = document.getElementById("said");
const dialog = document.getElementById("confirm");

function confirmed(what) {
  document.getElementById("confirm-title").textContent = "Delete?";
  document.getElementById("confirm-text").textContent =
    `This deletes ${what}. Requests that run now still end; there is no way back.`;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

const acts = {
  activate: ({ path, version }) => post(path, { version: Number(version) }),
  pin: ({ path, version, pinned }) => post(path, { version: Number(version), pinned: pinned === "true" }),
  delete: ({ path }) => call(path, { method: "DELETE" }),
};

async function act(button) {
  const { act: name, what, path } = button.dataset;
  if (name === "delete" && !(await confirmed(what))) return;
  button.disabled = true;
  try {
    await acts[name](button.dataset);
    const gone = name === "delete" && !path.includes("/versions/");
    if (gone) location.assign("/ui");
    else location.reload();
  } catch (error) {
    button.disabled = false;
    explain(said, error);
    said.scrollIntoView({ block: "nearest" });
  }
}

for (const button of document.querySelectorAll("button[data-act]")) {
  button.hidden = false;
  button.addEventListener("click", () => act(button));
}
