/** Calls back when the page is seen again or the network returns; what it gives back ends that. */
export function watchWakeups(onWake: () => void): () => void {
  const target = globalThis as Partial<Pick<Window, 'addEventListener' | 'removeEventListener' | 'document'>>;
  const { document } = target;
  const onVisible = () => {
    if (document?.visibilityState === 'visible') onWake();
  };
  target.addEventListener?.('online', onWake);
  document?.addEventListener('visibilitychange', onVisible);
  return () => {
    target.removeEventListener?.('online', onWake);
    document?.removeEventListener('visibilitychange', onVisible);
  };
}
