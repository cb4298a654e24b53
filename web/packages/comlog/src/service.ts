/**
 * The methods of a service as functions. Connect's own client also knows streams that no browser can
 * send, and would be a good part of every page.
 */
import type { DescMethod, DescService, MessageInitShape } from '@bufbuild/protobuf';
import type { CallOptions, Client, Transport } from '@connectrpc/connect';

type Input = MessageInitShape<DescMethod['input']>;

export function serviceClient<S extends DescService>(service: S, transport: Transport): Client<S> {
  const bind = (method: DescMethod) =>
    method.methodKind === 'server_streaming'
      ? (input: Input, options?: CallOptions) => answers(transport, method, input, options)
      : (input: Input, options?: CallOptions) => answer(transport, method, input, options);
  return Object.fromEntries(service.methods.map((method) => [method.localName, bind(method)])) as Client<S>;
}

async function answer(transport: Transport, method: DescMethod, input: Input, options: CallOptions = {}) {
  const { signal, timeoutMs, headers } = options;
  const call = transport.unary(method as DescMethod & { methodKind: 'unary' }, signal, timeoutMs, headers, input);
  return (await call).message;
}

async function* answers(transport: Transport, method: DescMethod, input: Input, options: CallOptions = {}) {
  const { signal, timeoutMs, headers } = options;
  const call = transport.stream(
    method as DescMethod & { methodKind: 'server_streaming' },
    signal,
    timeoutMs,
    headers,
    only(input),
  );
  yield* (await call).message;
}

async function* only<T>(one: T) {
  yield one;
}
