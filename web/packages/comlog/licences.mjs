// The licences lie at the top of the repository; what is published needs them beside it.
import { copyFileSync } from 'node:fs';

for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
  copyFileSync(new URL(`../../../${name}`, import.meta.url), new URL(name, import.meta.url));
}
