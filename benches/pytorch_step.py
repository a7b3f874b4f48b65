"""The training step of `benches/step.rs` in PyTorch: the paper's single-subject model, d_model 96, 12 layers, 256 timesteps.

Tokens are counted as there: all that are processed, though the loss covers the last half of each window. The model is
Hugging Face's GPT2Model over `inputs_embeds` (scaled-dot-product attention, tanh-GELU) with an untied head on the last
half, the optimiser AdamW, fused. Each configuration prints the median of its steps.

    python benches/pytorch_step.py [--threads 1 2] [--batch 8 16 32 64] [--steps 5] [--no-compile]
"""

import argparse
import statistics
import time

import torch
from transformers import GPT2Config, GPT2Model

CONTEXT, LEVELS, WIDTH, CHANNELS, CONDITIONS = 256, 256, 96, 306, 119


class Gpt2Meg(torch.nn.Module):
    def __init__(self):
        super().__init__()
        config = GPT2Config(
            vocab_size=1,
            n_positions=CONTEXT,
            n_embd=WIDTH,
            n_layer=12,
            n_head=12,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            attn_implementation="sdpa",
            bos_token_id=0,
            eos_token_id=0,
        )
        self.body = GPT2Model(config)
        self.body.wte.weight.requires_grad_(False)
        self.token = torch.nn.Embedding(LEVELS, WIDTH)
        self.channel = torch.nn.Embedding(CHANNELS, WIDTH)
        self.subject = torch.nn.Embedding(1, WIDTH)
        self.condition = torch.nn.Embedding(CONDITIONS, WIDTH)
        self.head = torch.nn.Linear(WIDTH, LEVELS, bias=False)

    def forward(self, token, condition, channel, subject):
        x = self.token(token[:, :-1]) + self.channel(channel)[:, None] + self.subject(subject)[:, None]
        x = x + self.condition(condition) * (condition > 0)[..., None]
        x = self.body(inputs_embeds=x).last_hidden_state[:, CONTEXT // 2 :]
        target = token[:, CONTEXT // 2 + 1 :]
        return torch.nn.functional.cross_entropy(self.head(x).flatten(0, 1), target.flatten())


def measure(batch, threads, compiled, steps):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Gpt2Meg()
    run = torch.compile(model) if compiled else model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    token = torch.randint(LEVELS, (batch, CONTEXT + 1))
    condition = torch.randint(CONDITIONS, (batch, CONTEXT))
    channel = torch.arange(batch) % CHANNELS
    subject = torch.zeros(batch, dtype=torch.long)

    seconds = []
    for step in range(steps + 2):
        start, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        run(token, condition, channel, subject).backward()
        optimizer.step()
        if step >= 2:  # compilation and warming up
            seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    tokens = batch * CONTEXT
    wall, cpu = (statistics.median(column) for column in zip(*seconds))
    kind = "compiled" if compiled else "eager"
    print(
        f"{kind:8}  {threads} threads  batch {batch:3}  {1e3 * wall:8.1f} ms  {tokens / wall:8.0f} tokens/s"
        f"  {tokens / cpu:8.0f} tokens per second of processor time",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    for threads in args.threads:
        for batch in args.batch:
            for compiled in [False] + [True] * (not args.no_compile):
                measure(batch, threads, compiled, args.steps)


if __name__ == "__main__":
    main()
