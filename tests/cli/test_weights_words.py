import pytest

from s4eca.cli.weights_words import wanted
from s4eca.errors import S4ecaError

BERT = {("google-bert/bert-base-uncased", "weights"), ("google-bert/bert-base-uncased", "tokenizer")}
BLIP = {("Salesforce/blip-itm-base-coco", "weights"), ("Salesforce/blip-itm-base-coco", "tokenizer")}
B16 = {("openai/clip-vit-base-patch16", "weights"), ("openai/clip-vit-base-patch16", "tokenizer")}
SWIN_B = ("timm/swin_base_patch4_window12_384.ms_in22k", "weights")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {SWIN_B, *BERT}),
        (["vision=swin_base,swin_large", "data=refsegrs"],
         {SWIN_B, ("timm/swin_large_patch4_window12_384.ms_in22k", "weights"), *BERT}),
        (["experiment=lavt_recipe"], {SWIN_B, *BERT}),
        (["vision=remoteclip_l14", "text=remoteclip_l14"],
         {("chendelong/RemoteCLIP", "RemoteCLIP-ViT-L-14.pt"), ("openai/clip-vit-large-patch14", "tokenizer")}),
        (["text.weights=random", "vision.weights=random"], set()),
        (["model.lr=1e-3", "model.segmenter.tower_dtype=bf16", "trainer=gpu", "split=val"], {SWIN_B, *BERT}),
        (["model=dgl_rsis"], {*B16, *BLIP}),
        (["model=dgl_rsis", "model.cache=folder", "split=val"], {*B16, *BLIP}),
        (["proposer=sam,sam2", "grounding=clip"],
         {*B16, ("facebook/sam-vit-huge", "weights"), ("facebook/sam2.1-hiera-large", "weights")}),
        (["model=dgl_rsis_glclip", "text=roberta_base", "vision=swin_demo"],
         {*B16, ("FacebookAI/roberta-base", "weights"), ("FacebookAI/roberta-base", "tokenizer")}),
    ],
)  # fmt: skip
def test_the_words_of_a_run_ask_for_what_it_takes(words, expected):
    assert {(need.repository, need.part) for need in wanted(words)} == expected


def test_other_words_are_named():
    for words in (["visoin=swin_base"], ["all", "vision=swin_base"], ["text.nmae=x"]):
        with pytest.raises(S4ecaError, match=r"cannot be composed|all is no KEY=VALUE"):
            wanted(words)
