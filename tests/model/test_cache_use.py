"""The words about kept answers are public: clients send and read them."""

from appliance.model.cache_use import CacheUse, CacheWish


def test_the_words_stay_what_they_are() -> None:
    assert [wish.value for wish in CacheWish] == ["", "no-cache", "no-store", "bypass"]
    assert [use.value for use in CacheUse] == ["hit", "miss", "off"]


def test_to_wish_for_nothing_is_false() -> None:
    assert not CacheWish.USUAL
    assert all(wish for wish in CacheWish if wish is not CacheWish.USUAL)
