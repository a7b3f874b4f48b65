"""GPT2MEG in PyTorch as its users would write it: what `peers.py` compares the engine with.

One work a call, timed after a warm-up, one line of JSON:

    python torch_peer.py train    --batch 32 --threads 2 [--compile]
    python torch_peer.py score    --batch 32 --threads 2 [--compile]
    python torch_peer.py generate --batch 306 --hop 255

Tokens are counted as the engine counts them: of a step or a pass all timesteps of its windows, though the loss covers their last
halves; of generation those drawn. Attention is `scaled_dot_product_attention`, the optimiser AdamW, fused; generation has
preallocated caches, `inference_mode` and draws from the nucleus p = 0.8. A compiled timestep attends to the whole cache
under a mask, so that nothing is compiled again as the window grows; an eager one to what there is.
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional

LEVELS, CHANNELS, CONDITIONS, CONTEXT = 256, 306, 119, 256
SHAPES = {"single": (96, 12, 12), "group": (240, 12, 12)}


class Block(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def split(self, x):
        """Queries, keys and values, [batch, heads, time, d_head]."""
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def finish(self, x, answer):
        x = x + self.proj(answer.transpose(1, 2).flatten(-2))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))

    def forward(self, x):
        q, k, v = self.split(x)
        return self.finish(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    def prefill(self, x, cache):
        q, k, v = self.split(x)
        n = x.shape[1]
        cache[0][:, :, :n], cache[1][:, :, :n] = k, v
        return self.finish(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    def timestep(self, x, cache, at, mask):
        q, k, v = self.split(x)
        cache[0].index_copy_(2, at, k)
        cache[1].index_copy_(2, at, v)
        if mask is None:
            seen = int(at) + 1
            answer = functional.scaled_dot_product_attention(q, cache[0][:, :, :seen], cache[1][:, :, :seen])
        else:
            answer = functional.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=mask)
        return self.finish(x, answer)


class Gpt2Meg(torch.nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.token, self.position = torch.nn.Embedding(LEVELS, width), torch.nn.Embedding(CONTEXT, width)
        self.channel, self.subject = torch.nn.Embedding(CHANNELS, width), torch.nn.Embedding(1, width)
        self.condition = torch.nn.Embedding(CONDITIONS, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, LEVELS, bias=False)

    def embed(self, token, condition, channel, position):
        x = self.token(token) + self.position(position) + self.channel(channel)[:, None]
        return x + self.subject.weight[0] + self.condition(condition) * (condition > 0)[..., None]

    def forward(self, token, condition, channel):
        """The loss of the last half."""
        x = self.embed(token[:, :-1], condition, channel, torch.arange(CONTEXT))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x[:, CONTEXT // 2 :]))
        return functional.cross_entropy(logits.flatten(0, 1), token[:, CONTEXT // 2 + 1 :].flatten())

    def prefill(self, token, condition, channel, caches):
        x = self.embed(token, condition, channel, torch.arange(token.shape[1]))
        for block, cache in zip(self.blocks, caches):
            x = block.prefill(x, cache)
        return self.head(self.norm(x[:, -1]))

    def timestep(self, token, condition, channel, caches, at, mask):
        x = self.embed(token, condition, channel, at)
        for block, cache in zip(self.blocks, caches):
            x = block.timestep(x, cache, at, mask)
        return self.head(self.norm(x[:, -1]))


def nucleus(logits, p=0.8):
    """Draws from the most likely levels that together have p."""
    probability, level = logits.softmax(-1).sort(descending=True)
    probability[probability.cumsum(-1) - probability >= p] = 0.0
    return level.gather(1, torch.multinomial(probability, 1))


def repeated(work, repeats):
    """Median seconds, after a first time that compiles and warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def windows(batch):
    token = torch.randint(LEVELS, (batch, CONTEXT + 1))
    return token, torch.randint(CONDITIONS, (batch, CONTEXT)), torch.arange(batch) % CHANNELS


def train(model, args):
    run = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    batch = windows(args.batch)

    def step():
        optimizer.zero_grad()
        run(*batch).backward()
        optimizer.step()

    return args.batch * CONTEXT / repeated(step, args.repeats)


def score(model, args):
    run = torch.compile(model) if args.compile else model
    batch = windows(args.batch)
    with torch.inference_mode():
        return args.batch * CONTEXT / repeated(lambda: run(*batch), args.repeats)


def generate(model, args):
    """A window: CONTEXT − hop timesteps are read, then `hop` are drawn with the cache."""
    timestep = torch.compile(model.timestep) if args.compile else model.timestep
    token, condition, channel = windows(args.batch)
    first, last = model.blocks[0], CONTEXT - args.hop
    shape = (2, args.batch, first.heads, CONTEXT, first.proj.in_features // first.heads)
    positions = torch.arange(CONTEXT)

    def window():
        drawn = nucleus(model.prefill(token[:, :last], condition[:, :last], channel, caches))
        for at in range(last, CONTEXT - 1):
            mask = (positions <= at)[None, None, None] if args.compile else None
            logits = timestep(drawn, condition[:, at : at + 1], channel, caches, positions[at : at + 1], mask)
            drawn = nucleus(logits)

    with torch.inference_mode():
        caches = [torch.zeros(shape) for _ in model.blocks]
        return args.batch * args.hop / repeated(window, args.repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["train", "score", "generate"])
    parser.add_argument("--shape", choices=SHAPES, default="single")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hop", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rate = globals()[args.work](Gpt2Meg(*SHAPES[args.shape]), args)
    print(json.dumps({"tokens_per_second": rate, "torch": torch.__version__, **vars(args)}))


if __name__ == "__main__":
    main()
