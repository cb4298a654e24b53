/** Client of comlog for browsers and Node. Importing it does nothing: see the README. */
export { ComlogError } from './error.js';
export type { Code, ErrorDetails, Reason } from './error.js';
export type { BytesLike, Header, HeaderInput, LogRecord, RecordInput } from './record.js';
