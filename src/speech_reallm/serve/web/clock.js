// Times as people read them.

/** 75.26 -> 1:15, 4000 -> 1:06:40; with digits 1: 1:15.2. Cut off, not rounded, as clocks do. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  // what floating point has made a hair too small is no second less
  const ticks = Math.floor(Math.max(0, seconds) * unit + 1e-6);
  const rest = ((ticks % (60 * unit)) / unit).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const minutes = Math.floor(ticks / (60 * unit));
  if (minutes < 60) return `${minutes}:${rest}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

/** A duration in running text: 0.72 s, 6.6 s, 34 s, 1:22. */
export function duration(seconds) {
  if (seconds >= 59.5) return clock(Math.round(seconds));
  const digits = seconds < 2 ? 2 : seconds < 10 ? 1 : 0;
  return `${Number(seconds.toFixed(digits))} s`;
}
