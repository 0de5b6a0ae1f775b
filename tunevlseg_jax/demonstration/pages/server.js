// Requests to the server; a mistake is thrown as an Error with the server's message.

export async function ask(path, { method = "GET", query = [], body, json, signal, raw = false } = {}) {
  const address = query.length ? `${path}?${new URLSearchParams(query)}` : path;
  let response;
  try {
    response = await fetch(address, { method, body: json === undefined ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server doesn't answer. Is it still running?");
  }
  if (!response.ok) {
    const text = await response.text();
    let message = text;
    try {
      message = JSON.parse(text).error;
    } catch {} // a text
    throw new Error(message || `The server answered ${response.status}.`);
  }
  return raw ? response.blob() : response.json();
}

export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
