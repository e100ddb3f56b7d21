"""Texts of different lengths with attention masks, and a network that reads them and lets no padding into its outputs."""

import torch
from torch import nn

WORDS, GARBAGE = 11, 3


def texts(batches, padding=0, garbage=GARBAGE, left=False, size=5):
    """Batches of token ids and masks, each as long as its longest text and ``padding`` more, filled with ``garbage``."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(batches):
        lengths = torch.randint(2, 7, (size,), generator=generator)
        ids = torch.randint(WORDS, (size, 6), generator=generator)
        length = int(lengths.max()) + padding
        mask = torch.arange(length) < lengths[:, None]
        full = torch.full((size, length), garbage)
        full[:, : min(6, length)] = ids[:, : min(6, length)]
        full = torch.where(mask, full, garbage)
        if left:
            full, mask = (torch.stack([row.roll(length - int(n)) for row, n in zip(part, lengths)]) for part in (full, mask))
        yield {"input_ids": full, "attention_mask": mask.long()}


class Reader(nn.Module):
    """Logits (B, L, 7) of each token, from it and the mean of all that count."""

    def __init__(self, seed=0, tokens_first=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.words, self.a, self.b, self.c = nn.Embedding(WORDS, 8), nn.Linear(8, 12), nn.Linear(12, 9), nn.Linear(9, 7)
        self.tokens_first = tokens_first

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None].to(self.words.weight)
        x = self.words(input_ids)
        if self.tokens_first:
            x, mask = x.transpose(0, 1), mask.transpose(0, 1)
        dim = 0 if self.tokens_first else 1
        x = self.a(x).relu()
        x = x + (x * mask).sum(dim, keepdim=True) / mask.sum(dim, keepdim=True)
        y = self.c(self.b(x).relu())
        return y.transpose(0, 1) if self.tokens_first else y
