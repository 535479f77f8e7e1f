// The page of `lmlab serve`. What the model writes is only ever text: it is never read as HTML.
"use strict";
const at = (id) => document.getElementById(id);
let writing = null;

function headers() {
  const token = at("token").value;
  return { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
}

function say(what, wrong = false) {
  at("status").textContent = what;
  at("status").classList.toggle("error", wrong);
}

function asked() {
  const prompt = at("prompt").value;
  const fields = { stream: true, stream_options: { include_usage: true } };
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) {
    if (at(name).value !== "") fields[name] = Number(at(name).value);
  }
  return at("chat").checked ? { ...fields, messages: [{ role: "user", content: prompt }] } : { ...fields, prompt };
}

// The data of each server-sent event.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n\n");
    held = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

async function write(event) {
  event.preventDefault();
  writing?.abort();
  const own = (writing = new AbortController());
  at("text").textContent = at("chat").checked ? "" : at("prompt").value;
  at("stop").disabled = false;
  say("…");
  try {
    const path = at("chat").checked ? "v1/chat/completions" : "v1/completions";
    const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(asked()), signal: own.signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    let complete = false;
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") { complete = true; break; }
      const piece = JSON.parse(data);
      if (piece.error) throw new Error(piece.error.message);
      if (piece.usage) say(`${piece.usage.completion_tokens} tokens`);
      for (const choice of piece.choices) at("text").append(choice.text ?? choice.delta.content);
    }
    if (!complete) throw new Error("the connection broke before the end of the text.");
  } catch (error) {
    say(own.signal.aborted ? "stopped" : error.message, !own.signal.aborted);
  }
  if (writing === own) at("stop").disabled = true;
}

async function describe() {
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (!answer.ok) return say((await answer.json()).error.message, true);
    const model = (await answer.json()).data[0];
    at("model").textContent = model.id;
    at("max_tokens").max = model.max_model_len;
    at("chat_label").hidden = !model.chat;
    at("chat").checked = model.chat;
    say("");
  } catch {
    say("the server does not answer.", true);
  }
}

at("form").addEventListener("submit", write);
at("stop").addEventListener("click", () => writing?.abort());
at("token").addEventListener("change", describe);
describe();
