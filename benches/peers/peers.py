"""Runs the engine and the libraries its users would take otherwise, by turns, and prints how many times faster it is.

    cargo build --release
    python -m venv target/peers && target/peers/bin/pip install -r benches/peers/requirements.txt
    target/peers/bin/python benches/peers/peers.py [--works train hop ...] [--grid] [--rounds 3]

Each round runs ours, then theirs, as processes of their own; figures are medians over rounds, and the ratio is that of the
medians. PyTorch is tried eager and compiled, and with --grid at batches of 8 to 64 and on one thread, too (an hour); the
fastest counts. Nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WORKS = ["train", "score", "window", "hop", "tokenize"]


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stderr}")
    return done.stdout


def ours(args, work):
    """Tokens a second of the engine."""
    bench = work if work in ("train", "score") else "generate"
    command = [args.gpt2meg, "bench", bench, "--preset", args.shape, "--device", "cpu", "--threads", args.threads, "--json"]
    command += {"train": ["--repeats", 5], "score": ["--repeats", 10], "window": ["--hop", 255, "--repeats", 1], "hop": ["--repeats", 3]}[work]
    return json.loads(run(command))["tokens_per_second"]


def theirs(args, work, batch, threads, compiled):
    """Tokens a second of PyTorch."""
    name = work if work in ("train", "score") else "generate"
    command = [sys.executable, HERE / "torch_peer.py", name, "--shape", args.shape, "--batch", batch, "--threads", threads]
    command += {"window": ["--hop", 255, "--repeats", 1], "hop": ["--hop", 10, "--repeats", 2]}.get(work, [])
    return json.loads(run(command + ["--compile"] * compiled))["tokens_per_second"]


def settings(args, work):
    """Batch, threads and whether it is compiled."""
    generates = work in ("window", "hop")
    batches = [306] if generates else [8, 16, 32, 64] if args.grid else [8, 32]
    threads = sorted({1, args.threads}) if args.grid else [args.threads]
    return [(batch, n, compiled) for batch in batches for n in threads for compiled in (False, True)]


def network(args, work):
    """Both rates and what was the fastest of theirs."""
    mine, others = [], {setting: [] for setting in settings(args, work)}
    for _ in range(args.rounds):
        for setting, rates in others.items():
            mine.append(ours(args, work))
            rates.append(theirs(args, work, *setting))
            print(f"  {work}: ours {mine[-1]:.0f}, PyTorch {setting} {rates[-1]:.0f} tokens/s", file=sys.stderr, flush=True)
    best = max(others, key=lambda setting: statistics.median(others[setting]))
    batch, threads, compiled = best
    how = f"PyTorch {'compiled' if compiled else 'eager'}, batch {batch}, {threads} threads"
    return statistics.median(mine), statistics.median(others[best]), "tokens/s", how


def tokenize(args):
    """Seconds of recording a second."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        recording = Path(folder) / "ten_raw.fif"
        run([args.gpt2meg, "simulate", "--out", recording, "--hours", 1 / 6, "--sfreq", 1000, "--quiet"])
        mine, others = [], []
        for _ in range(args.rounds):
            done = run([sys.executable, "-c", TIMED, args.gpt2meg, "tokenize", recording, "--out", Path(folder) / "data",
                        "--threads", args.threads, "--force", "--quiet"])
            mine.append(600 / float(done.split()[-1]))
            peer = json.loads(run([sys.executable, HERE / "mne_peer.py", recording, Path(folder) / "tokens.npy"]))
            others.append(600 / peer["seconds"])
    return statistics.median(mine), statistics.median(others), "× real time", f"MNE-Python {peer['mne']} and numpy"


# A process that runs another and prints its seconds, so that starting Python is not counted.
TIMED = """
import subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - start)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpt2meg", type=Path, default=HERE.parent.parent / "target/release/gpt2meg")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--shape", choices=["single", "group"], default="single")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="for the recording of 735 MB that is tokenized [default: the system's]")
    parser.add_argument("--grid", action="store_true", help="all batches and thread counts of PyTorch")
    args = parser.parse_args()
    print(f"{'work':10} {'ours':>10} {'theirs':>10}  {'':12} ratio")
    for work in args.works:
        mine, other, unit, how = tokenize(args) if work == "tokenize" else network(args, work)
        print(f"{work:10} {mine:10.0f} {other:10.0f}  {unit:12} {mine / other:5.2f}  {how}", flush=True)


if __name__ == "__main__":
    main()
