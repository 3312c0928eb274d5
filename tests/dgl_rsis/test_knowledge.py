import json

import pytest
from omegaconf import OmegaConf

from s4eca.dgl_rsis.knowledge import LEVELS, Entry, Knowledge, available, plural
from s4eca.errors import S4ecaError

RRSIS_D = """
Expressway-Service-area Expressway-toll-station airplane airport baseballfield basketballcourt bridge chimney dam
golffield groundtrackfield harbor overpass ship stadium storagetank tenniscourt trainstation vehicle windmill
"""
ISAID = """
ship storage_tank baseball_diamond tennis_court basketball_court ground_track_field bridge large_vehicle small_vehicle
helicopter swimming_pool roundabout soccer_ball_field plane harbor
"""
REFSEGRS = """
road,vehicle,car,van,building,truck,trailer,bus,road marking,bikeway,sidewalk,tree,low vegetation,impervious surface
"""

FILE = """
natural: "a photo of a {}."
templates: ["from above: {}", "{} by satellite"]
background: [grass]
classes:
  - {name: storage_tank, spoken: storage tank, synonyms: [oil tank], description: "round and white"}
  - {name: dam}
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "classes"),
    [("rrsis_d", RRSIS_D.split()), ("isaid", ISAID.split()), ("refsegrs", REFSEGRS.strip().split(","))],
)
def test_the_classes_of_each_dataset_in_order(name, classes):
    knowledge = Knowledge.load(name)
    assert [entry.name for entry in knowledge.classes] == classes
    assert all(entry.description and "_" not in entry.spoken for entry in knowledge.classes)
    assert knowledge.natural == "a photo of a {}."
    assert len(knowledge.templates) == 7
    assert len(knowledge.background) >= 5
    assert knowledge.prompts("P3").keys() == set(classes)


def test_a_byte_order_mark_is_none_of_the_first_key_and_other_encodings_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE.lstrip(), encoding="utf-8-sig")
    assert [entry.name for entry in Knowledge.load(path).classes] == ["storage_tank", "dam"]
    path.write_text(FILE.replace("oil tank", "油罐"), encoding="gbk")
    with pytest.raises(S4ecaError, match=r"mine\.yaml .*probably GBK .*iconv"):
        Knowledge.load(path)


@pytest.mark.parametrize("name", available())
def test_every_file_of_the_package_can_be_used(name):
    knowledge = Knowledge.load(name)
    texts = [text for level in LEVELS for group in knowledge.prompts(level).values() for text in group]
    assert texts
    assert not [text for text in texts if "{" in text or "_" in text]


def test_the_real_datasets_are_there():
    assert {"isaid", "refsegrs", "rrsis_d"} <= set(available())


def test_levels_add_words(tmp_path):
    knowledge = Knowledge.load(write(tmp_path, FILE))
    assert knowledge.prompts("P0") == {"storage_tank": ("a photo of a storage tank.",), "dam": ("a photo of a dam.",)}
    assert knowledge.prompts("P1")["storage_tank"] == ("from above: storage tank", "storage tank by satellite")
    assert knowledge.prompts("P2")["storage_tank"] == (
        "from above: storage tank", "storage tank by satellite", "from above: oil tank", "oil tank by satellite",
    )  # fmt: skip
    assert knowledge.prompts("P3")["storage_tank"] == (
        *knowledge.prompts("P2")["storage_tank"], "from above: round and white", "round and white by satellite",
    )  # fmt: skip
    assert knowledge.prompts("P3")["dam"] == ("from above: dam", "dam by satellite")
    assert knowledge.background_prompts("P0") == {"grass": ("a photo of a grass.",)}
    assert all(
        knowledge.background_prompts(level) == {"grass": ("from above: grass", "grass by satellite")}
        for level in LEVELS[1:]
    )


def test_a_level_that_is_none():
    with pytest.raises(S4ecaError, match="prompts=p3 is no level of knowledge; take one of P0, P1, P2, P3"):
        Knowledge.load("isaid").prompts("p3")
    with pytest.raises(S4ecaError, match="prompts=P4"):
        Knowledge.load("isaid").background_prompts("P4")


def test_vocabulary_holds_names_synonyms_and_plurals(tmp_path):
    knowledge = Knowledge.load(write(tmp_path, FILE))
    assert knowledge.vocabulary() == {
        "storage_tank": "storage_tank", "storage tank": "storage_tank", "storage tanks": "storage_tank",
        "oil tank": "storage_tank", "oil tanks": "storage_tank", "dam": "dam", "dams": "dam",
    }  # fmt: skip
    assert knowledge.find("Oil-TANKS") == "storage_tank"
    assert knowledge.find("oil") is None


@pytest.mark.parametrize(
    ("one", "many"),
    [("bus", "buses"), ("ferry", "ferries"), ("highway", "highways"), ("marsh", "marshes"), ("box", "boxes"),
     ("golf course", "golf courses")],
)  # fmt: skip
def test_plurals(one, many):
    assert plural(one) == many


def test_identity_is_plain_and_says_all(tmp_path):
    identity = Knowledge.load(write(tmp_path, FILE)).identity()
    assert json.loads(json.dumps(identity)) == identity == {
        "natural": "a photo of a {}.",
        "templates": ["from above: {}", "{} by satellite"],
        "background": ["grass"],
        "classes": [
            {"name": "storage_tank", "spoken": "storage tank", "synonyms": ["oil tank"],
             "description": "round and white"},
            {"name": "dam", "spoken": "dam", "synonyms": [], "description": ""},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["isaid", "refsegrs", "rrsis_d"])
def test_what_identity_says_makes_the_same_knowledge(tmp_path, name):
    knowledge = Knowledge.load(name)
    assert Knowledge.load(write(tmp_path, OmegaConf.to_yaml(knowledge.identity()))) == knowledge


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("natural: \"a photo of a {}.\"", ""), "`natural` of the knowledge .* is None"),
        (("a photo of a {}.", "a photo"), "the template 'a photo' under `natural` .* does not hold {} once"),
        (("from above: {}", "above"), "the template 'above' under `templates`"),
        (("from above: {}", "{} {}"), "the template '{} {}' under `templates`"),
        (('["from above: {}", "{} by satellite"]', "[]"), "has no templates"),
        (('["from above: {}", "{} by satellite"]', '"{}"'), "`templates` of the knowledge .* write a list"),
        (("[grass]", "[3]"), r"`background\.0` of the knowledge .* is 3; write a text"),
        (("[grass]", "[dams]"), "the class 'dam' and the background 'dams' of the knowledge are both called 'dams'"),
        (("[oil tank]", "[oil tank, Dam]"), "the class 'storage_tank' and the class 'dam' .* both called 'dam'"),
        (("[oil tank]", "oil tank"), r"`classes\[0\]\.synonyms` of the knowledge"),
        (("[oil tank]", '["  "]'), r"`classes\[0\]\.synonyms\.0` of the knowledge .* is '  '"),
        (("[oil tank]", '["12"]'), "'12', which holds no letter"),
        (("{name: dam}", "{spoken: dam}"), r"`classes\[1\]\.name` of the knowledge .* is None"),
        (("{name: dam}", "{name: no}"), r"`classes\[1\]\.name` of the knowledge .* is False"),
        (("{name: dam}", "{name: dam, color: red}"), r"`classes\[1\]` .* has the unknown key `color`"),
        (("{name: dam}", "dam"), r"`classes\[1\]` .* is no mapping"),
        (("{name: dam}", "{name: storage_tank}"), "the class 'storage_tank' stands twice"),
        (("classes:", "things:"), "has the unknown key `things`; its keys are natural, templates, background, classes"),
        (("[grass]", "[grass"), "is no YAML"),
    ],
)  # fmt: skip
def test_a_malformed_file_names_the_key(tmp_path, change, message):
    assert change[0] in FILE
    path = write(tmp_path, FILE.replace(*change))
    with pytest.raises(S4ecaError, match=message) as caught:
        Knowledge.load(path)
    assert str(path) in str(caught.value)


def test_a_file_without_classes_or_mapping(tmp_path):
    with pytest.raises(S4ecaError, match=r"`classes` of the knowledge .* is no list"):
        Knowledge.load(write(tmp_path, 'natural: "{}"\ntemplates: ["{}"]\n'))
    with pytest.raises(S4ecaError, match="has no classes"):
        Knowledge("{}", ("{}",), (), ())
    with pytest.raises(S4ecaError, match="is no mapping"):
        Knowledge.load(write(tmp_path, "- 1\n"))


def test_unknown_names_and_paths(tmp_path):
    with pytest.raises(S4ecaError, match=r"knowledge=dota is none of isaid, refsegrs, rrsis_d.*; take one"):
        Knowledge.load("dota")
    with pytest.raises(S4ecaError, match=r"absent\.yaml cannot be read"):
        Knowledge.load(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(S4ecaError, match=r"binary\.yaml cannot be read"):
        Knowledge.load(binary)


def test_entries_are_hashable_values():
    assert len({Entry("dam", "dam"), Entry("dam", "dam")}) == 1
