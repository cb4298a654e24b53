/** The last line of a run, as the project's other tests end: `N passed, M failed`. */
export default async function* report(events) {
  let passed = 0;
  let failed = 0;
  for await (const { type, data } of events) {
    // A file counts only when it has no tests to count, and fails.
    const isFile = data?.name?.endsWith('.js') && data?.nesting === 0;
    if (type === 'test:pass' && !isFile && !data.skip && !data.todo) passed += 1;
    if (type === 'test:fail' || data?.skip || data?.todo) failed += 1;
  }
  yield `${passed} passed, ${failed} failed\n`;
}
