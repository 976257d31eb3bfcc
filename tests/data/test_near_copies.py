from detoxlens.data.near_copies import num_near_copies, word_ngrams


def test_word_5grams_ignore_case_and_punctuation_and_a_short_text_is_one():
    assert word_ngrams("The Zorgons, they sing too loud.") == {
        ("the", "zorgons", "they", "sing", "too"),
        ("zorgons", "they", "sing", "too", "loud"),
    }
    assert word_ngrams("Zorgons sing!") == {("zorgons", "sing")}
    assert word_ngrams(" ... ") == set()


def test_half_of_the_5grams_makes_a_near_copy():
    learnt = ["zorgons never pay for their tram rides at night", "short one"]
    texts = [
        "Zorgons never pay for their soup",  # 1 of 2
        "Zorgons never pay for their soup at all",  # 1 of 4
        "Short one.",
        "short",
        "...",
    ]
    assert num_near_copies(texts, learnt) == 2
