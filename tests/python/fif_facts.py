"""What MNE-Python reads from a FIF recording, in the words of `gpt2meg::recording::Info`.

    python fif_facts.py OUT RECORDING...    writes OUT/0.json and OUT/0.npy (channels x time, float64, SI units), …
"""

import json
import sys
import warnings

import mne
import numpy as np

KINDS = {"ref_meg": "refmeg"}
PLAIN = {"mag", "grad", "eeg", "stim", "eog", "ecg", "emg"}


def facts(path):
    """The info as a dictionary, and the samples (channels x time, float64)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne.io.read_raw_fif(path, allow_maxshield="yes", verbose="error")
    info = raw.info
    date = info["meas_date"]
    sfreq = info["sfreq"]

    def timesteps(seconds):
        return int(raw.time_as_index(seconds - raw.first_time, use_rounding=True)[0])

    events = []
    for a in raw.annotations:
        onset, end = timesteps(a["onset"]), timesteps(a["onset"] + a["duration"])
        if onset < raw.n_times:
            events.append([onset, end - onset, a["description"]])
    dig = [
        [int(p["kind"]), int(p["ident"]), *map(float, p["r"]), int(p["coord_frame"])] for p in info["dig"] or []
    ]
    known = dict(
        sfreq=sfreq,
        n_timestep=raw.n_times,
        first_timestep=raw.first_samp,
        pass_band=[info["highpass"], info["lowpass"]],
        line_freq=info["line_freq"],
        meas_date=None if date is None else [int(date.timestamp() // 1), date.microsecond],
        subject=(info["subject_info"] or {}).get("his_id"),
        dev_head_t=None if info["dev_head_t"] is None else info["dev_head_t"]["trans"].tolist(),
        dig=dig,
        events=sorted(events),
        channels=[
            dict(
                name=ch["ch_name"],
                kind=KINDS.get(kind, kind if kind in PLAIN else "misc"),
                loc=np.nan_to_num(ch["loc"]).tolist(),
                coil_type=int(ch["coil_type"]),
                unit=int(ch["unit"]),
                coord_frame=int(ch["coord_frame"]),
                bad=ch["ch_name"] in info["bads"],
            )
            for ch, kind in zip(info["chs"], info.get_channel_types())
        ],
    )
    if "stim" in info.get_channel_types():
        steps = mne.find_events(raw, shortest_event=1, verbose="error")
        known["triggers"] = [[int(onset) - raw.first_samp, 0, str(value)] for onset, _, value in steps]
    return known, raw.get_data()


def dumps(facts):
    return json.dumps(facts, ensure_ascii=False, default=lambda number: number.item())


if __name__ == "__main__":
    out, *recordings = sys.argv[1:]
    for i, recording in enumerate(recordings):
        known, samples = facts(recording)
        with open(f"{out}/{i}.json", "w", encoding="utf-8") as file:
            file.write(dumps(known))
        np.save(f"{out}/{i}.npy", samples)
