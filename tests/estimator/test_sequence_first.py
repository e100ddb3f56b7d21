"""A network whose layers run over tokens first is compressed to the same as the one that runs over examples first."""

import pytest
import torch
from torch import nn

import lrp


class Reader(nn.Module):
    """Reads the first token of an encoder."""

    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=batch_first)
        self.words, self.head, self.batch_first = nn.Embedding(20, 16), nn.Linear(16, 5), batch_first
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids, attention_mask=None):
        x, padding = self.words(input_ids), None if attention_mask is None else attention_mask == 0
        if self.batch_first:
            return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])
        return self.head(self.encoder(x.transpose(0, 1), src_key_padding_mask=padding)[0])


def both(batch):
    """What is left of the two networks, and what they give."""
    with torch.no_grad():
        found = [lrp.compress(Reader(first).eval(), batch, 0.5)[0] for first in (True, False)]
        return [[sum(p.numel() for p in small.parameters()), small(**batch)] for small in found]


@pytest.mark.parametrize("tokens", [7, 8])
def test_one_token_is_read(tokens):
    """Of an even number of tokens the second half has no gradient in the last layer, as the second image has none of the first."""
    (size, y), (same, z) = both({"input_ids": torch.randint(20, (48, tokens))})
    assert size == same
    torch.testing.assert_close(y, z, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("examples", "tokens"), [(48, 12), (16, 16), (128, 128), (144, 16)])
def test_padding_behind_each_example(examples, tokens):
    """As many examples in a batch as tokens, or in the rest of one: their order cannot be seen of the values' shape."""
    ids, mask = torch.randint(20, (examples, tokens)), torch.ones(examples, tokens).long()
    mask[:, 6:] = 0
    mask[::2, 4:] = 0
    (size, y), (same, z) = both({"input_ids": ids, "attention_mask": mask})
    assert size == same
    torch.testing.assert_close(y, z, rtol=1e-3, atol=1e-4)
