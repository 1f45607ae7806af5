// Index the pasted text with a sentence encoder and search it, all in this page.

const MODEL = "asterisk-256-wp-hub"; // a folder beside this page: asterisk-export --layout hub
const SIZE = 400; // characters of a passage at most: well below the tokens that the model takes
const SHOWN = 10; // passages

const [text, button, progress, status, query, results] = [
  "text", "index", "progress", "status", "query", "results",
].map((id) => document.getElementById(id));

let model, tokenizer;
let prompts = {}; // what the model wants before a query and before a passage
const CHANGED = "The text has changed since it was indexed: index it again.";
let passages = []; // { text, start, end, vector }, places are those in `indexed`
let indexed = ""; // the text that they are of

async function load() {
  const library = import("./lib/transformers.min.js");
  const { AutoModel, AutoTokenizer, env } = await library.catch(() => {
    throw new Error("lib/ is not beside this page: npm run setup puts it there");
  });
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  env.localModelPath = "./";
  // These caches keep a file for good; the browser's own asks the server whether it has changed.
  env.useBrowserCache = env.useWasmCache = false;
  // Half the size of the build that is taken without this, which has WebGPU in it.
  const wasm = new URL("lib/ort-wasm-simd-threaded", location.href);
  env.backends.onnx.wasm.wasmPaths = { mjs: `${wasm}.mjs`, wasm: `${wasm}.wasm` };
  env.backends.onnx.wasm.numThreads = 1; // more need headers that a plain static server lacks

  const answer = await fetch(`${MODEL}/config_sentence_transformers.json`);
  if (!answer.ok) throw new Error(`${MODEL}/ is not beside this page, or is no hub folder`);
  const settings = await answer.json();
  const { query, document: passage } = settings.prompts;
  const otherwise = settings.prompts[settings.default_prompt_name] ?? "";
  prompts = { query: query ?? otherwise, passage: passage ?? otherwise };
  tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  model = await AutoModel.from_pretrained(MODEL, { dtype: "q8", device: "wasm" });
}

// Return the vector of a text, of length 1.
async function embed(text, prompt) {
  const inputs = tokenizer(prompt + text, { truncation: true });
  const { sentence_embedding } = await model(inputs);
  return sentence_embedding.normalize(2, -1).data;
}

const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);

// Return the passages of a text: paragraphs, the long ones in parts of whole sentences.
function split(text) {
  const found = [];
  let offset = 0;
  for (const paragraph of text.split(/(\n[^\S\n]*\n)/)) {
    let open; // the passage to which the next sentence goes while it fits
    for (const [start, end] of parts(paragraph, offset, ["sentence", "word"])) {
      if (open && end - open.start <= SIZE) open.end = end;
      else found.push((open = { start, end }));
    }
    offset += paragraph.length;
  }
  return found
    .map(({ start, end }) => ({ start, end, text: text.slice(start, end).trim() }))
    .filter((passage) => passage.text);
}

// Yield the [start, end] of each sentence, and of each word of one that is too long.
function* parts(text, offset, [kind, ...smaller]) {
  const segmenter = new Intl.Segmenter(undefined, { granularity: kind });
  for (const { segment, index } of segmenter.segment(text)) {
    const start = offset + index;
    if (segment.length > SIZE && smaller.length) yield* parts(segment, start, smaller);
    else yield [start, start + segment.length];
  }
}

async function indexText() {
  if (button.disabled) return;
  const pasted = text.value;
  const found = split(pasted);
  if (!found.length) return say("There is no text to index.");
  button.disabled = true;
  progress.hidden = false;
  progress.max = found.length;
  say(`Indexing ${found.length} passages…`);
  try {
    for (const [at, passage] of found.entries()) {
      progress.value = at;
      await new Promise((painted) => setTimeout(painted));
      passage.vector = await embed(passage.text, prompts.passage);
    }
    [passages, indexed] = [found, pasted];
    say(`${found.length} ${found.length === 1 ? "passage" : "passages"} indexed.`);
    query.disabled = false;
    query.focus();
    await search();
  } finally {
    button.disabled = false;
    progress.hidden = true;
  }
}

let searches = 0;

async function search() {
  const mine = ++searches;
  const asked = query.value.trim();
  const vector = asked && (await embed(asked, prompts.query));
  if (mine !== searches) return; // a key was pressed since
  const scored = vector ? passages.map((passage) => [dot(vector, passage.vector), passage]) : [];
  const best = scored.sort(([a], [b]) => b - a).slice(0, SHOWN);
  results.replaceChildren(...best.map(([score, passage]) => row(score, passage)));
}

function row(score, passage) {
  const [item, link, number, words] = ["li", "button", "b", "span"].map((tag) =>
    document.createElement(tag),
  );
  number.textContent = score.toFixed(2);
  words.textContent = passage.text; // as text: a passage may look like HTML
  link.append(number, words);
  link.onclick = () => show(passage);
  item.append(link);
  return item;
}

// Select a passage in the pasted text.
function show({ start, end }) {
  if (text.value !== indexed) return say(CHANGED);
  text.focus();
  text.setSelectionRange(start, start); // browsers scroll to where the cursor is put
  text.blur();
  text.focus();
  text.setSelectionRange(start, end);
  text.scrollIntoView({ block: "nearest" });
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const stops = [query, ...results.querySelectorAll("button")];
  const next = stops[stops.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function say(line) {
  status.textContent = line;
}

const guarded = (act) => () => act().catch((failure) => say(`That failed: ${failure.message}`));

button.onclick = guarded(indexText);
query.oninput = guarded(search);
query.onkeydown = results.onkeydown = walk;
text.oninput = () => passages.length && text.value !== indexed && say(CHANGED);
text.onkeydown = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && button.click();

say("Loading the model…");
load()
  .then(() => {
    button.disabled = false;
    say("The model is loaded: paste a text.");
  })
  .catch((failure) => say(`The model did not load: ${failure.message}`))
  .finally(() => (progress.hidden = true));
