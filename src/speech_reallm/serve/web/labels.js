// Where words are written under the waveform: in lanes, from where they were spoken on, never over one another.

const GAP = 6;
// px that a label may be moved to the right to find room; with less room it is left out
const MOST_SHIFT = 140;
// words from here back may still change: those of the segment that is being written
const UNSETTLED = 400;

export class Labels {
  constructor(lanes) {
    this.lanes = lanes;
    this.clear();
  }

  clear() {
    this.places = [];
    this.scale = 0;
  }

  /**
   * scale: px a second. measure(text): its width, px. Returns for every word {lane, at, width}: `at` px from the
   * transcript's beginning, `lane` -1 where there is no room. A word keeps its place while others follow.
   */
  place(words, scale, measure) {
    if (scale !== this.scale || words.length < this.places.length) this.clear();
    this.scale = scale;
    const { places } = this;
    let i = Math.max(0, places.length - UNSETTLED);
    while (i < places.length && places[i].text === words[i].word && places[i].start === words[i].start) i++;
    places.length = i;
    for (; i < words.length; i++) {
      const { word: text, start, end } = words[i];
      const ends = [...(places[i - 1]?.ends ?? Array(this.lanes).fill(-Infinity))];
      const from = start * scale;
      const width = measure(text);
      let lane = ends.findIndex((taken) => taken + GAP <= from);
      if (lane < 0) lane = ends.indexOf(Math.min(...ends));
      const at = Math.max(from, ends[lane] + GAP);
      const mark = Math.max(2, (end - start) * scale);
      if (at - from > MOST_SHIFT) lane = -1;
      else ends[lane] = at + Math.max(width, mark);
      places.push({ lane, at, width, mark, text, start, ends });
    }
    return places;
  }
}
