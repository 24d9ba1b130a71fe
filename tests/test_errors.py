from d2c_mlops.errors import did_you_mean


def test_a_misspelled_name_is_answered_with_the_nearest_known_one() -> None:
    assert did_you_mean("demnd", {"demand": 1, "leads": 2}) == "; did you mean 'demand'?"
    assert did_you_mean("x", ["demand"]) == "" == did_you_mean("demand", [])
