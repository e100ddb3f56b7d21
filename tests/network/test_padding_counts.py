"""Where padding counts although it should not is said; a decoder's tokens are not taken for the mask's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches

MASK = torch.tensor([[1] * 8, [1] * 4 + [0] * 4] * 24)
IDS = torch.randint(1, 20, (48, 8), generator=torch.Generator().manual_seed(0)) * MASK


class Words(nn.Module):
    """A Linear layer at each token, and what ``behind`` makes of its outputs."""

    def __init__(self, behind):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.each, self.behind, self.head = nn.Embedding(20, 12), nn.Linear(12, 12), behind, nn.Linear(12, 5)

    def forward(self, input_ids, attention_mask):
        x = self.each(self.words(input_ids)).relu()
        if self.behind is not None:
            x, attention_mask = self.behind(x.mT).mT.relu(), attention_mask[:, ::2]
        mask = attention_mask[..., None].to(x)
        return self.head((x * mask).sum(1) / mask.sum(1))


def padding(report):
    return [warning for warning in report.warnings if "padding counts" in warning]


def test_layers_at_another_rate_are_named():
    model = Words(nn.Conv1d(12, 12, 2, stride=2)).eval()
    _, report = lrp.compress(model, {"input_ids": IDS, "attention_mask": MASK}, 0.3)
    assert padding(report) == ["padding counts in behind: it does not run at each token of attention_mask; give examples of one length"]
    _, report = lrp.compress(model, {"input_ids": IDS, "attention_mask": torch.ones_like(MASK)}, 0.3)
    assert not padding(report), "nothing is padded"


def test_layers_at_each_token_and_behind_the_mean_are_not():
    assert not padding(lrp.compress(Words(None).eval(), {"input_ids": IDS, "attention_mask": MASK}, 0.3)[1])


class Translates(nn.Module):
    """Reads some tokens and gives something at each of others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.read, self.write, self.head = nn.Embedding(20, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 20)

    def forward(self, input_ids, attention_mask, decoder_input_ids=None, decoder_attention_mask=None, labels=None):
        given = F.pad(labels.clamp(min=0), (1, -1)) if decoder_input_ids is None else decoder_input_ids
        mask = attention_mask[..., None].float()
        x = (self.read(self.words(input_ids)).relu() * mask).sum(1) / mask.sum(1)
        return self.head((self.write(self.words(given)) + x[:, None]).relu())


def test_as_many_tokens_of_a_decoder_are_not_the_masks():
    """Statistics of the decoder, and its outputs, once left out what the encoder's mask does."""
    decoded = torch.randint(1, 20, (48, 8), generator=torch.Generator().manual_seed(1))
    longer = {"input_ids": F.pad(IDS, (0, 3)), "attention_mask": F.pad(MASK, (0, 3)), "decoder_input_ids": decoded}
    same = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": decoded}
    found = [lrp.compress(Translates().eval(), batch, 0.4)[0](**same) for batch in (longer, same)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_decoders_own_padding_is_said_to_count():
    batch = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": IDS[:, :6], "decoder_attention_mask": MASK[:, :6]}
    _, report = lrp.compress(Translates().eval(), batch, 0.3)
    assert padding(report) == ["padding counts in the decoder: decoder_attention_mask is not looked at; give examples of one length"]


@pytest.mark.parametrize("lengths", [[(5, 7), (8, 3), (4, 4)], [(4, 4), (8, 8), (5, 7)]])
@pytest.mark.parametrize("name", ["labels", "decoder_input_ids"])
def test_batches_differ_in_the_length_of_the_decoder(lengths, name):
    batches = [
        {"input_ids": IDS[:2, :n], "attention_mask": torch.ones(2, n).long(), name: torch.ones(2, m).long()} for n, m in lengths
    ]  # fmt: skip
    held = Batches.of(batches).whole()
    longest = max(m for _, m in lengths)
    assert held[name].shape == (6, longest) and held["attention_mask"].shape[1] in (8, 9) and held["attention_mask"].shape[1] != longest
    for i, (n, m) in enumerate(lengths):
        assert held["attention_mask"][2 * i].sum() == n
        assert held[name][2 * i].tolist() == [1] * m + [-100 if name == "labels" else 0] * (longest - m)
