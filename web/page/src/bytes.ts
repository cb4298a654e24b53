// Keys and values for people: as text, as JSON, as hex.

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/** UTF-8 as it is, anything wrong in it replaced. */
export function decode(bytes: Uint8Array): string {
  return lenient.decode(bytes);
}

/** The text of these bytes, undefined when they are not UTF-8. */
export function asText(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** What fits in a cell of one line: control characters become pictures, what is no text hex. */
export function preview(bytes: Uint8Array, most: number): string {
  const text = bytes.length > most ? cutText(bytes.subarray(0, most)) : asText(bytes);
  if (text === undefined) return hexPairs(bytes.subarray(0, most / 3));
  return text.replace(CONTROL, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)));
}

/** The text of bytes whose last character may be cut in the middle, and is then left out. */
function cutText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, { stream: true });
  } catch {
    return undefined;
  }
}

// The C0 controls, which Unicode has pictures for at U+2400.
const CONTROL = /[\u0000-\u001f]/g;

function hexPairs(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Eight, so that a row fits beside the list and on a phone. */
const HEX_ROW = 8;

/** Rows of offset, eight bytes and their ASCII. */
export function hexDump(bytes: Uint8Array): string {
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += HEX_ROW) {
    const row = bytes.subarray(at, at + HEX_ROW);
    const pairs = hexPairs(row).padEnd(3 * HEX_ROW - 1);
    const ascii = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "."));
    rows.push(`${at.toString(16).padStart(8, "0")}  ${pairs}  ${ascii.join("")}`);
  }
  return rows.join("\n");
}

/**
 * JSON laid out over lines, undefined when the text is none. Works on the text: numbers are never
 * parsed, so that those beyond 2^53 stay as they were written.
 */
export function prettyJson(text: string): string | undefined {
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  let depth = 0;
  let out = "";
  let previous = "";
  const line = (): string => `\n${"  ".repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") {
      depth += 1;
      out += token + line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      const empty = previous === "{" || previous === "[";
      out = empty ? out.trimEnd() + token : out + line() + token;
    } else if (token === ",") {
      out += token + line();
    } else {
      out += token === ":" ? ": " : token;
    }
    previous = token;
  }
  return out;
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
