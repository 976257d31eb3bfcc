from html.parser import HTMLParser

from detoxlens.attribution.heatmap import STYLE, heatmap_html

SCORES = ((0.25, 0.75), (0.2, 0.3, 0.5))


def page(prompt):
    return heatmap_html(SCORES, prompt, [" c", " d"], token_prob=[0.9, 0.8])


def test_each_cell_shows_its_value_on_hover_and_its_share_of_the_darkest_as_colour():
    html = page(["a", " b"])
    assert 'title=" b →  c: 0.7500"' in html
    assert "rgba(180,40,20,0.33)" in html  # .25 / .75
    assert 'title="p = 0.900"' in html
    assert html.count("<td") == 5


def test_a_token_is_never_read_as_markup():
    hostile = '"><script>alert(1)</script>'
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)
    parser.feed(page([hostile, "&amp;\n"]))
    assert set(seen) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "&amp;amp;⏎" in page([hostile, "&amp;\n"])
    assert "script" not in STYLE


def test_toxic_tokens_are_underlined_in_heads_of_columns_and_rows():
    table = heatmap_html([(0.4, 0.6), (0.2, 0.3, 0.5)], ("<a>", " b"), ("c", "d"), underlined={0, 3})
    assert '<th scope="col"><u>&lt;a&gt;</u></th>' in table and '<th scope="row"><u>d</u></th>' in table
    assert table.count("<u>") == 2  # `c` is no toxic token, `d` has no column
