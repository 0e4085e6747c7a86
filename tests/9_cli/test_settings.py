"""A setting is understood or refused by name; what a platform injects is not a setting."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_serve.cli.settings import ENV_PREFIX, SCHEMA, Settings, SettingsError, read_settings

FIELDS = Settings.__struct_fields__


def misspelt(word):
    """Every word one letter away from `word`: one missing, added, changed, or two swapped."""
    heads = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_uppercase + "_"
    yield from (a + b[1:] for a, b in heads if b)
    yield from (a + b[1] + b[0] + b[2:] for a, b in heads if len(b) > 1)
    yield from (a + x + b for a, b in heads for x in letters)
    yield from (a + x + b[1:] for a, b in heads if b for x in letters)


@pytest.mark.parametrize("name", FIELDS)
def test_every_variable_misspelt_by_one_letter_is_refused_by_name(name):
    for wrong in set(misspelt(name.upper())) - {other.upper() for other in FIELDS}:
        with pytest.raises(SettingsError, match=f"^unknown variable {ENV_PREFIX}{wrong}; "):
            read_settings({ENV_PREFIX + wrong: str(SCHEMA[name]["examples"][0])})


@pytest.mark.parametrize("word", ["X", "CPUS", "DEBUG", "LOGLEVEL"])
def test_a_variable_that_resembles_no_setting_is_answered_with_all_of_them(word):
    with pytest.raises(
        SettingsError, match=f"^unknown variable {ENV_PREFIX}{word}; there are "
    ) as told:
        read_settings({ENV_PREFIX + word: "1"})
    assert [name for name in FIELDS if ENV_PREFIX + name.upper() not in str(told.value)] == []


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize("port", ["80", "65535"])
def test_every_variable_that_kubernetes_injects_for_the_service_is_ignored(protocol, port):
    url, each = f"{protocol}://10.0.0.1:{port}", f"{ENV_PREFIX}PORT_{port}_{protocol.upper()}"
    injected = {
        f"{ENV_PREFIX}SERVICE_HOST": "10.0.0.1",
        f"{ENV_PREFIX}SERVICE_PORT": port,
        f"{ENV_PREFIX}SERVICE_PORT_HTTP": port,
        f"{ENV_PREFIX}SERVICE_PORT_HTTP_METRICS": port,
        f"{ENV_PREFIX}PORT": url,
        each: url,
        f"{each}_PROTO": protocol,
        f"{each}_PORT": port,
        f"{each}_ADDR": "10.0.0.1",
    }
    assert read_settings(injected) == Settings()


def test_what_kubernetes_injects_for_a_neighbour_service_is_ignored():
    injected = {
        f"{ENV_PREFIX}CANARY_SERVICE_HOST": "10.0.0.2",
        f"{ENV_PREFIX}CANARY_SERVICE_PORT": "80",
        f"{ENV_PREFIX}CANARY_PORT": "tcp://10.0.0.2:80",
        f"{ENV_PREFIX}CANARY_PORT_80_TCP_ADDR": "10.0.0.2",
    }
    assert read_settings(injected) == Settings()


CHOICES = {
    "access_log": {"off": "off", "values": "values"},
    "log_format": {"json": "json", "text": "text"},
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_beats_the_environment_and_the_environment_beats_the_default(name):
    kind = type(getattr(Settings(), name))
    words = (
        CHOICES.get(name)
        or {
            "int": {"7000": 7000, "8000": 8000} if name != "workers" else {"7": 7, "8": 8},
            "float": {"7.5": 7.5, "8.5": 8.5},
            "str": {"seven": "seven", "eight": "eight"},
            "bool": {"true": True, "false": False},
        }[kind.__name__]
    )
    (first, one), (second, other) = words.items()
    variable = {ENV_PREFIX + name.upper(): first}
    assert getattr(read_settings({}), name) == getattr(Settings(), name)
    assert getattr(read_settings(variable), name) == one
    assert getattr(read_settings(variable, **{name: None}), name) == one
    assert getattr(read_settings(variable, **{name: second}), name) == other


def test_variables_of_other_programs_are_not_looked_at():
    assert read_settings({"PORT": "x", "IRIS_RETRAIN_STAGED": "x", "HOST": ""}) == Settings()


@settings(max_examples=200, print_blob=True)
@given(name=st.sampled_from(FIELDS), value=st.text(max_size=20))
def test_any_value_is_a_setting_or_a_complaint_that_names_the_variable(name, value):
    variable = ENV_PREFIX + name.upper()
    try:
        assert isinstance(read_settings({variable: value}), Settings)
    except SettingsError as error:
        assert str(error).startswith(f"{variable} must be ")  # noqa: PT017
        assert "; for example " in str(error)  # noqa: PT017
