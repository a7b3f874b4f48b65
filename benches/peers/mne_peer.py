"""From a FIF file to tokens with MNE-Python and numpy: what `peers.py` compares `gpt2meg tokenize` with.

    python mne_peer.py recording_raw.fif tokens.npy

Band-pass (0.5–45 Hz, Butterworth of order 5, forwards and backwards), 100 Hz, then each channel by its mean and standard
deviation, clipped at 4 and quantised by µ-law to 256 levels. Seconds from opening the file to the saved array, as JSON.
"""

import json
import sys
import time

import mne
import numpy as np


def main():
    recording, output = sys.argv[1:]
    mne.set_log_level("error")
    start = time.perf_counter()
    raw = mne.io.read_raw_fif(recording, preload=True)
    raw.pick("meg")
    raw.filter(0.5, 45.0, method="iir", iir_params={"order": 5, "ftype": "butter", "output": "sos"})
    raw.resample(100.0)
    x = raw.get_data()
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    x = np.clip(x, -4, 4) / 4
    compressed = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log1p(255)
    np.save(output, np.floor((compressed + 1) / 2 * 255 + 0.5).astype(np.uint8))
    print(json.dumps({"seconds": time.perf_counter() - start, "mne": mne.__version__}))


if __name__ == "__main__":
    main()
