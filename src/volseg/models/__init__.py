"""Networks: tensor in, logits out; one file per architecture."""
