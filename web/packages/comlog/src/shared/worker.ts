/** The SharedWorker that holds the live streams of all tabs of an origin. */
import { Switchboard } from './switchboard.js';

const switchboard = new Switchboard();

(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = ({ ports }) => {
  for (const port of ports) switchboard.connect(port);
};
