// Choose a picture, paint a hole, show what the server's models complete. No other host is asked for anything.
"use strict";
const element = (id) => document.getElementById(id);
const picture = element("picture");
const canvas = element("hole");
const pen = canvas.getContext("2d");
// A stroke is {width, erases, points} in pixels of the picture, so the hole has the picture's own resolution.
let strokes = [];
let chosen = null; // {blob, name}
let about = null;
let pending = null; // AbortController of the completions under way
const urls = new Set(); // of results that are shown

// The cookie has the token now; the address is free of it for the history and for whoever looks on.
if (location.search) history.replaceState(null, "", location.pathname);

function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

const report = (error) => fail(error.message);

async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// Return the server's answer. Throws an error whose message is for the person.
async function request(path, options) {
  const response = await fetch(path, options).catch(() => {
    throw new Error("the server does not answer; see whether it still runs");
  });
  if (!response.ok) throw new Error(await errorOf(response));
  return response;
}

// --- The picture ---

function choose(blob, name) {
  fail("");
  if (blob.size > about.limits.bytes) {
    fail(`${name} has more than ${about.limits.bytes / 1e6} MB; give a smaller picture.`);
    return;
  }
  picture.onload = () => {
    if (picture.naturalWidth * picture.naturalHeight > about.limits.pixels) {
      fail(`${name} has more than ${about.limits.pixels / 1e6} megapixels; give a smaller picture.`);
      element("editor").hidden = true;
      return;
    }
    chosen = { blob, name };
    strokes = [];
    clearResults();
    element("editor").hidden = false;
    fit(element("stage"), picture.naturalWidth, picture.naturalHeight);
    resize();
  };
  picture.onerror = () => {
    element("editor").hidden = true;
    fail(`${name}: this browser cannot show it; save it as PNG or JPEG.`);
  };
  // The one before, whether it was loaded or not: what is shown needs its address no longer.
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(blob);
}

// Give a stage the picture's proportions, as large as fits into its column and the window.
function fit(stage, width, height) {
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.width = `min(100%, ${(70 * width) / height}vh)`;
  stage.classList.toggle("small", width < 128);
}

function chooseFile(file) {
  if (file) choose(file, file.name);
}

async function chooseExample(number) {
  const response = await request(`examples/${number}.png`);
  choose(await response.blob(), `example-${number}.png`);
}

// --- The hole ---

function trace(context, scale, colour) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const { width, erases, points } of strokes) {
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.lineWidth = width * scale;
    context.beginPath();
    // A click is a line too: a tiny one, whose round ends make a dot.
    context.moveTo(points[0].x * scale, points[0].y * scale + 0.01);
    for (const { x, y } of points) context.lineTo(x * scale, y * scale);
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

let pointer = null; // where the brush is, in pixels of the picture
function draw() {
  const scale = canvas.width / picture.naturalWidth;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  trace(pen, scale, getComputedStyle(canvas).getPropertyValue("--hole"));
  if (pointer) {
    pen.lineWidth = devicePixelRatio * 1.5;
    pen.strokeStyle = element("erase").checked ? "#fff" : "#000";
    pen.beginPath();
    pen.arc(pointer.x * scale, pointer.y * scale, (brushWidth() / 2) * scale, 0, 7);
    pen.stroke();
  }
  element("undo").disabled = element("clear").disabled = !strokes.length;
}

function resize() {
  const box = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
  draw();
}

// Not below two pixels: of a thinner line no pixel would be covered by more than half.
function brushWidth() {
  const share = element("brush").value / 100;
  return Math.max(2, share * Math.min(picture.naturalWidth, picture.naturalHeight));
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = picture.naturalWidth / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

let stroke = null; // the one that is being drawn, by one pointer
function startStroke(event) {
  if (event.button > 0 || stroke) return;
  canvas.setPointerCapture(event.pointerId);
  stroke = { width: brushWidth(), erases: element("erase").checked, points: [place(event)], by: event.pointerId };
  strokes.push(stroke);
  draw();
}

function move(event) {
  // A second finger would pull the line to itself.
  if (stroke && stroke.by !== event.pointerId) return;
  pointer = place(event);
  stroke?.points.push(pointer);
  draw();
}

function endStroke(event) {
  if (stroke?.by === event.pointerId) stroke = null;
}

function addBlock() {
  // As in training: half of the side, in the middle. A line around a quarter of it, so thick that nothing is left inside.
  const side = Math.min(picture.naturalWidth, picture.naturalHeight) / 2;
  const [x, y] = [picture.naturalWidth / 2, picture.naturalHeight / 2];
  const corner = side / 4;
  const points = [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]].map(([a, b]) => ({ x: x + a * corner, y: y + b * corner }));
  strokes.push({ width: side / 2, erases: false, points });
  draw();
}

// The hole as a PNG of the picture's size, white inside.
function holeFile() {
  const full = document.createElement("canvas");
  full.width = picture.naturalWidth;
  full.height = picture.naturalHeight;
  const context = full.getContext("2d");
  trace(context, 1, "#fff");
  context.globalCompositeOperation = "destination-over";
  context.fillRect(0, 0, full.width, full.height);
  return new Promise((done, refuse) =>
    full.toBlob((blob) => (blob ? done(blob) : refuse(new Error("this browser cannot paint so large a hole"))), "image/png"),
  );
}

// --- The results ---

function clearResults() {
  pending?.abort();
  for (const url of urls) URL.revokeObjectURL(url);
  urls.clear();
  element("results").replaceChildren();
  element("status").textContent = "Completions appear here.";
}

async function complete() {
  fail("");
  const completes = about.models.some((model) => model.tasks.includes("inpainting"));
  if (completes && !strokes.length) {
    fail("Paint over what is to be completed first.");
    return;
  }
  clearResults();
  const mine = (pending = new AbortController());
  element("complete").disabled = true;
  try {
    const hole = strokes.length ? await holeFile() : null;
    // One after another: the server computes one at a time.
    for (const model of about.models) {
      element("status").textContent = `${model.name} is at work…`;
      show(model, await ask(model, hole, mine.signal), hole !== null);
    }
    element("status").textContent = "";
  } catch (error) {
    if (mine.signal.aborted) return;
    element("status").textContent = "";
    fail(error.message);
  } finally {
    if (pending === mine) element("complete").disabled = false;
  }
}

async function ask(model, hole, signal) {
  const form = new FormData();
  form.append("model", model.name);
  form.append("blend", element("poisson").checked ? "poisson" : "none");
  form.append("picture", chosen.blob, chosen.name);
  if (hole) form.append("hole", hole, "hole.png");
  return (await request("complete", { method: "POST", body: form, signal })).formData();
}

function shown(file) {
  const url = URL.createObjectURL(file);
  urls.add(url);
  return url;
}

function show(model, answer, covered) {
  // As text: a field without a file name is one in a form.
  const facts = JSON.parse(answer.get("facts"));
  const completed = answer.get("completed");
  const parts = answer.get("parts");
  const result = element("result").content.cloneNode(true).firstElementChild;
  const [done, found] = result.querySelectorAll("figure");
  result.querySelector("h3").textContent = `${model.name}: ${model.kind}, step ${model.step}`;
  for (const stage of result.querySelectorAll(".stage")) fit(stage, picture.naturalWidth, picture.naturalHeight);
  const base = completed ? shown(completed) : shown(chosen.blob);
  if (completed) {
    done.querySelector("img").src = base;
    const link = done.querySelector("a");
    link.href = base;
    link.download = `${chosen.name.replace(/\.[^.]*$/, "")}.completed.png`;
  } else done.remove();
  const [under, over] = found.querySelectorAll("img");
  under.src = base;
  if (parts) over.src = shown(parts);
  else over.remove();
  mark(found.querySelector("svg"), facts);
  under.alt = describe(facts);
  found.querySelector(".legend").append(...legend(facts));
  const notes = !completed && covered ? ["this model completes nothing; it sees the picture with its hole", ...facts.notes] : facts.notes;
  result.querySelector(".notes").append(...notes.map((text) => item(text)));
  element("results").append(result);
  // In one column the first result lies below the window.
  if (result.previousElementSibling === null && matchMedia("(max-width: 52rem)").matches)
    element("result-head").scrollIntoView({ behavior: "smooth" });
}

function item(text, colour) {
  const line = document.createElement("li");
  if (colour) {
    const chip = document.createElement("i");
    chip.style.background = colour;
    line.append(chip);
  }
  line.append(text);
  return line;
}

const words = (name) => name.replaceAll("_", " ");

function legend(facts) {
  const lines = facts.classes.map((name) => item(words(name), about.colours[name]));
  if (facts.landmarks) lines.push(item("landmarks", "rgb(51 255 102)"));
  return lines;
}

function describe(facts) {
  const found = [...facts.classes.map(words), ...(facts.landmarks ? ["five landmarks a face"] : [])];
  const squares = facts.squares.length > 1 ? `${facts.squares.length} face squares` : "its face square";
  return found.length ? `found in the picture: ${found.join(", ")}` : `the picture with ${squares}`;
}

// Draw the square and the landmarks of each face. Pixel (x, y) has its centre half a pixel from its corner.
function mark(svg, facts) {
  const add = (name, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    svg.append(shape);
  };
  svg.setAttribute("viewBox", `0 0 ${picture.naturalWidth} ${picture.naturalHeight}`);
  facts.squares.forEach(([x, y, side], face) => {
    for (const name of ["square", "square dashes"]) add("rect", { class: name, x, y, width: side, height: side });
    for (const [cx, cy] of facts.landmarks?.[face] ?? [])
      add("circle", { class: "point", cx: cx + 0.5, cy: cy + 0.5, r: side / 60 });
  });
}

// --- The start ---

function listen() {
  element("choose").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", (event) => {
    chooseFile(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  const drop = element("drop");
  for (const kind of ["dragover", "dragleave", "drop"])
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") chooseFile(event.dataTransfer.files[0]);
    });
  canvas.addEventListener("pointerdown", startStroke);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("lostpointercapture", endStroke); // let go, or taken by the browser
  canvas.addEventListener("pointerleave", () => {
    pointer = null;
    draw();
  });
  const undo = () => {
    if (stroke) return; // its line goes on
    strokes.pop();
    draw();
  };
  element("undo").addEventListener("click", undo);
  element("clear").addEventListener("click", () => {
    if (stroke) return;
    strokes = [];
    draw();
  });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
  });
  element("block").addEventListener("click", addBlock);
  element("complete").addEventListener("click", complete);
  addEventListener("resize", () => chosen && resize());
}

async function start() {
  about = await (await request("about")).json();
  element("version").textContent = about.version;
  const purposes = { inpainting: "completes", segmentation: "finds parts", landmarks: "finds landmarks" };
  for (const model of about.models) {
    const name = document.createElement("b");
    name.textContent = model.name;
    const line = document.createElement("li");
    const does = model.tasks.map((task) => purposes[task] ?? task).join(", ");
    line.append(name, `: ${model.kind}, ${does} at ${model.size}×${model.size} pixels; step ${model.step}`);
    element("models").append(line);
  }
  element("blending").hidden = !about.models.some((model) => model.tasks.includes("inpainting"));
  for (let number = 1; number <= about.examples; number += 1) {
    const image = document.createElement("img");
    image.src = `examples/${number}.png`;
    image.alt = `example ${number}`;
    const button = document.createElement("button");
    button.type = "button";
    button.append(image);
    button.addEventListener("click", () => chooseExample(number).catch(report));
    element("examples").append(button);
  }
  listen();
}
start().catch(report);
