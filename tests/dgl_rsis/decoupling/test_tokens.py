from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.dgl_rsis.decoupling.rules import RuleDecoupler
from s4eca.dgl_rsis.decoupling.tokens import subtokens
from s4eca.dgl_rsis.decoupling.whole import WholeDecoupler
from s4eca.tokenizer import aerial_tokenizer

TOKENIZER = aerial_tokenizer()
RULES = RuleDecoupler("rrsis_d")


def tokenize(text, **options):
    encoded = TOKENIZER(text, return_offsets_mapping=True, **options)
    return TOKENIZER.convert_ids_to_tokens(encoded["input_ids"]), encoded["offset_mapping"]


def prompted(template, phrase):
    return template.format(phrase.text), template.index("{}")


def pick(tokens, positions):
    return " ".join(tokens[position] for position in positions)


def test_head_and_modifiers_in_a_prompt():
    phrase = RULES("The white Storage-Tank, on the left")
    text, shift = prompted("there is a {}!", phrase)
    assert (text, shift) == ("there is a The white Storage-Tank, on the left!", 11)
    tokens, offsets = tokenize(text)
    assert tokens == [
        "[CLS]",
        "there",
        "is",
        "a",
        "the",
        "white",
        "storage",
        "-",
        "tank",
        ",",
        "on",
        "the",
        "left",
        "!",
        "[SEP]",
    ]
    assert subtokens(offsets, phrase.spans(phrase.local), shift) == [6, 8]
    assert subtokens(offsets, phrase.spans(phrase.context), shift) == [5, 10, 12]
    assert subtokens(offsets, [phrase.place_span], shift) == [10, 11, 12]


def test_a_word_in_pieces_is_found_whole():
    phrase = RULES("a dull Flyover above ships")
    text, shift = prompted("{}", phrase)
    tokens, offsets = tokenize(text)
    assert pick(tokens, subtokens(offsets, phrase.spans(phrase.attributes), shift)) == "d ##u ##l ##l"
    assert pick(tokens, subtokens(offsets, phrase.spans(phrase.local), shift)) == "f ##l ##y ##o ##v ##e ##r"
    assert pick(tokens, subtokens(offsets, [phrase.relations[0].span], shift)) == "above ship ##s"


def test_special_tokens_and_padding_never_match():
    phrase = RULES("ship")
    tokens, offsets = tokenize("ship", padding="max_length", max_length=6)
    assert tokens == ["[CLS]", "ship", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert subtokens(offsets, phrase.spans(phrase.local)) == [1]
    assert subtokens([(0, 0), (0, 4), (0, 0)], [(0, 4)]) == [1]
    assert subtokens(offsets, []) == []


def test_neighbours_that_only_touch_are_not_taken():
    assert subtokens([(0, 2), (2, 4), (4, 6)], [(2, 4)]) == [1]
    assert subtokens([(0, 2), (2, 4), (4, 6)], [(1, 3)], shift=1) == [1]
    assert subtokens([(0, 2), (2, 4), (4, 6)], [(1, 3)], shift=2) == [1, 2]


def test_words_that_were_cut_off_have_no_token():
    phrase = RULES("the ship on the left")
    tokens, offsets = tokenize(phrase.text, truncation=True, max_length=4)
    assert tokens == ["[CLS]", "the", "ship", "[SEP]"]
    assert subtokens(offsets, phrase.spans(phrase.context)) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["ship", "Overpass", "zeppelin", "é", "gr-ay", "don't", "17", ",", "!", "İ"]), max_size=8),
    st.sampled_from(["{}", "a photo of {}.", "{}, seen from above", "İ there is a {}"]),
)
def test_every_piece_belongs_to_the_word_that_holds_it(parts, template):
    phrase = WholeDecoupler()(" ".join(parts))
    text, shift = prompted(template, phrase)
    tokens, offsets = tokenize(text)
    assert text[shift : shift + len(phrase.text)] == phrase.text
    seen = []
    for position, word in enumerate(phrase.words):
        positions = subtokens(offsets, phrase.spans([position]), shift)
        assert positions, word
        # together the pieces spell the word, nothing of its neighbours
        covered = {place for token in positions for place in range(*offsets[token])}
        assert covered == set(range(word.start + shift, word.end + shift))
        seen += positions
    assert len(seen) == len(set(seen))
    assert seen == subtokens(offsets, phrase.spans(phrase.local), shift)
    rest = set(range(len(tokens))) - set(seen)
    in_phrase = {
        token for token in rest if offsets[token][0] >= shift and offsets[token][1] <= shift + len(phrase.text)
    }
    assert all(not tokens[token].isalnum() or offsets[token] == (0, 0) for token in in_phrase)
