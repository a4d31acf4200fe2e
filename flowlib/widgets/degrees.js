// Degrees of a masked network's units, as flowlib.masks makes them; for the explorers that draw one.

// Half to the even neighbour, as torch rounds.
function rounded(v) {
  const low = Math.floor(v);
  return v - low === 0.5 ? low + (low % 2) : Math.round(v);
}

function cyclicDegrees(width, high, low = 1) {
  const count = high - low + 1;
  if (width < count) return width === 1 ? [high] : range(width).map((k) => rounded(low + (k * (high - low)) / (width - 1)));
  return range(width).map((k) => low + (k % count)).sort((a, b) => a - b);
}
