// Uploads: what was dropped becomes a form of the API, and its answer is shown as it is.
import { explain, facts, make, paint, refusal } from "./common.js";

const at = (id) => document.getElementById(id);
const CONFIG = "adapter_config.json";
const MODEL = "adapter_model.safetensors";
let chosen = null; // { fields: [[name, File]], name }
let sending = null;

/** Which files of many are the upload; a sentence where they are none. */
function understood(files, folder) {
  const named = (name) => files.find((file) => file.name === name);
  const config = named(CONFIG), model = named(MODEL);
  if (config && model) return { fields: [["adapter_config", config], ["adapter_model", model]], name: folder };
  if (config || model) return `PEFT writes two files: drop ${config ? MODEL : CONFIG} with it.`;
  if (files.length === 1)
    return { fields: [["file", files[0]]], name: files[0].name.replace(/\.[^.]*$/, "") };
  return files.length
    ? `Drop one native file, or ${CONFIG} and ${MODEL}; these are ${files.length} files.`
    : "There is no file in it.";
}

/** All files of what was dropped, a folder's too. Entries have to be taken before the first wait. */
async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const folder = entries.find((entry) => entry?.isDirectory)?.name ?? "";
  const files = [];
  for (const entry of entries) files.push(...(await filesOf(entry)));
  return { files, folder };
}

async function filesOf(entry) {
  if (entry instanceof File) return [entry];
  if (entry?.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  if (!entry?.isDirectory) return [];
  const reader = entry.createReader();
  const inside = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const plain = inside.filter((child) => child.isFile);
  return (await Promise.all(plain.map(filesOf))).flat();
}

/** A name that a task may have, made from a file's or a folder's. */
function taskName(name) {
  return name.toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 64);
}

function choose({ files, folder }) {
  const found = understood(files, folder);
  const good = typeof found !== "string";
  chosen = good ? found : null;
  at("send").disabled = !good;
  at("said").replaceChildren(...(good ? [] : [make("p", "notice bad", found)]));
  const shown = good ? found.fields.map(([, file]) => file) : [];
  at("chosen").replaceChildren(...shown.map((file) => make("li", "", `${file.name}, ${sizeOf(file.size)}`)));
  if (good && !at("task_id").value) at("task_id").value = taskName(found.name);
  if (good) (at("task_id").value ? at("send") : at("task_id")).focus();
}

function sizeOf(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < 3; unit++) bytes /= 1000;
  return `${unit && bytes < 9.95 ? bytes.toFixed(1) : bytes.toFixed(0)} ${units[unit]}`;
}

function formOf(upload) {
  const form = new FormData();
  form.append("task_id", at("task_id").value);
  form.append("activate", String(at("activate").checked));
  if (at("description").value) form.append("description", at("description").value);
  for (const [name, file] of upload.fields) form.append(name, file);
  return form;
}

/** By XMLHttpRequest, which tells how much has been sent. */
function send(form, progress) {
  sending = new XMLHttpRequest();
  const request = sending;
  request.open("POST", "/ui/api/prefixes");
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => progress(event.loaded / event.total);
    request.onerror = () => reject(new Error("unreachable"));
    request.onabort = () => resolve(null);
    request.onload = () => {
      if (request.status < 300) resolve({ created: request.status === 201, version: JSON.parse(request.responseText) });
      else reject(refusal(request.status, request.responseText));
    };
    request.send(form);
  });
}

function busy(on) {
  at("progress").hidden = at("cancel").hidden = !on;
  at("progress").value = 0;
  at("send").disabled = on || !chosen;
}

function tell({ created, version }) {
  const box = make("div", "notice good"), line = make("p"), link = make("a", "", version.task_id);
  link.href = `/ui/tasks/${version.task_id}`;
  line.append(link, created
    ? ` has version ${version.version} now: checked, tried and stored.`
    : ` holds the same content already, as version ${version.version}.`);
  box.append(line, facts([["method", version.method], ["tokens", version.prefix_tokens], ["size", sizeOf(version.bytes)], ["digest", version.prefix_digest]]));
  at("said").replaceChildren(box);
}

/** The list as the server draws it now. */
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
  at("list").replaceChildren(...drawn.getElementById("list").childNodes);
  paint();
}

async function upload(event) {
  event.preventDefault();
  if (!chosen || sending) return;
  busy(true);
  try {
    const answer = await send(formOf(chosen), (part) => {
      if (part < 1) at("progress").value = part;
      else at("progress").removeAttribute("value"); // sent; it is being checked
    });
    if (answer) {
      tell(answer);
      chosen = null;
      at("chosen").replaceChildren();
      at("task_id").value = at("description").value = "";
      await refresh();
    }
  } catch (error) {
    explain(at("said"), error);
  } finally {
    sending = null;
    busy(false);
  }
}

const zone = at("upload"), drop = at("drop");
if (zone) {
  zone.hidden = false;
  // A drop anywhere on the page is meant for the zone; the browser would open the file.
  const ofFiles = (event) => event.dataTransfer.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!ofFiles(event)) return;
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? drop.classList.remove("over"));
  addEventListener("drop", async (event) => {
    if (!ofFiles(event)) return;
    event.preventDefault();
    drop.classList.remove("over");
    choose(await dropped(event.dataTransfer));
  });
  at("files").addEventListener("change", (event) => choose({ files: [...event.target.files], folder: "" }));
  at("cancel").addEventListener("click", () => sending?.abort());
  zone.querySelector("form").addEventListener("submit", upload);
}
