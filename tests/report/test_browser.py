"""What a person sees and does with the page, and that nothing in it does anything by itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .conftest import DESK, PHONE, axe
from .hostile import STRINGS

SECONDS = 1.0
SHOWN = "[...document.querySelectorAll('#nodes > tbody:not([hidden])')]"


def names(page: Any) -> list[str]:
    return page.evaluate(f"{SHOWN}.map((group) => group.querySelector('.name').textContent)")


# ---- content ------------------------------------------------------------------------------------------------------------


def test_the_first_screen_answers_which_drifted_why_n7_failed_and_what_to_do(visit: Any) -> None:
    page = visit("128").page
    low = DESK["height"]
    for text in ("n7", "torch is 2.8.0+cu128, but 2.0.1+cu118 was planned", "ansible-playbook site.yml -l n7"):
        box = page.locator(".first .todo").first.get_by_text(text, exact=False).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < low, text
    for text in ("gpufleet-pytorch.sh was changed", "570.133.20", "Drift since 2026-11-24 18:02 UTC"):
        box = page.locator("section[aria-labelledby=drift-title]").get_by_text(text, exact=False).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < low, text
    assert page.locator(".big").inner_text() == "122 of 128 nodes verified"
    assert page.title() == "mycluster: 122 of 128 nodes verified"


def test_the_matrix_has_every_node_and_marks_what_changed(visit: Any) -> None:
    page = visit("128").page
    assert page.locator("#nodes > tbody").count() == 128
    cells = page.locator("#n-7 tr").first.locator("td").all_inner_texts()
    assert [cell.split("\n")[0] for cell in cells] == [
        "failed", "8 × NVIDIA H100 80GB HBM3", "570.195.03", "11.8", "8.9.6.50", "3.11.2", "2.8.0+cu128",
    ]  # fmt: skip
    assert "was 2.0.1+cu118" in cells[-1]
    assert "outlier" in page.locator("#n-65 tr").first.inner_text()


def test_pictures_are_there_and_name_the_outliers(visit: Any) -> None:
    page = visit("128").page
    assert page.locator("figure.plot svg").count() == 7
    picture = page.locator("figure.plot", has_text="GPU memory bandwidth")
    assert picture.locator("circle").count() == 2
    assert picture.locator("svg text.label").all_text_contents() == ["n65 GPU 0", "n107 GPU 0"]


# ---- use ----------------------------------------------------------------------------------------------------------------


def test_filter(visit: Any) -> None:
    page = visit("128").page
    page.fill("#find", "a100 n1")
    assert names(page) == ["n13", "n18", "n103", "n108", "n113", "n118", "n123", "n128"][:8]
    assert page.locator("#shown").inner_text() == "8 of 128 nodes"
    page.fill("#find", "nothing like it")
    assert names(page) == []
    assert page.locator("#none").is_visible()
    page.fill("#find", "")
    page.click(".chip[data-show=s-failed]")
    assert names(page) == ["n7", "n16", "n17"]
    assert page.locator(".chip[aria-pressed=true]").all_inner_texts() == ["failed 3"]


def test_sort(visit: Any) -> None:
    page = visit("128").page
    assert names(page)[:3] == ["n1", "n2", "n3"]
    page.click("th.h-node button")
    assert names(page)[:3] == ["n128", "n127", "n126"]
    page.click("th.h-verdict button")
    assert names(page)[:5] == ["n17", "n16", "n7", "n15", "n22"]
    assert page.locator("th[aria-sort]").count() == 1
    page.click("th.h-driver button")
    page.click("th.h-driver button")
    assert page.locator("th.h-driver").get_attribute("aria-sort") == "descending"
    drivers = page.evaluate(f"{SHOWN}.map((group) => group.rows[0].cells[3].firstChild.textContent)")
    assert drivers[0] == "570.195.03"


def test_a_name_above_opens_its_node_below(visit: Any) -> None:
    page = visit("128").page
    page.fill("#find", "n1")
    page.locator(".todo a", has_text="n7").first.click()
    more = page.locator("#n-7 .more")
    more.wait_for(state="visible")
    assert "GF-VERIFY-FAILED" in more.inner_text()
    assert page.evaluate("document.activeElement.textContent") == "n7"


def test_keyboard(visit: Any) -> None:
    page = visit("128").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    page.keyboard.type("n7")
    assert names(page)[0] == "n7"
    page.keyboard.press("Escape")
    assert len(names(page)) == 128
    page.locator("#n-7 .name").focus()
    for key, expanded in (("Enter", "true"), (" ", "false")):
        page.keyboard.press(key)
        assert page.locator("#n-7 .name").get_attribute("aria-expanded") == expanded
    page.locator("th.h-node button").focus()
    page.keyboard.press("Enter")
    assert names(page)[0] == "n128"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_colours_follow_the_system_and_the_switch(visit: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit("4", color_scheme="light").page, visit("4", color_scheme="dark").page
    white, black = light.evaluate(background), dark.evaluate(background)
    assert white != black
    light.click("#theme")
    assert light.evaluate(background) == white
    light.click("#theme")
    assert light.evaluate(background) == black


def test_without_scripts_everything_can_be_read(visit: Any) -> None:
    page = visit("128", java_script_enabled=False).page
    assert page.locator("#nodes > tbody").count() == 128
    assert page.locator("#find").is_hidden()
    assert page.locator("#n-7 .more").is_hidden()
    page.locator(".todo a", has_text="n7").first.click()
    assert page.locator("#n-7 .more").is_visible()


def test_print(visit: Any) -> None:
    page = visit("128").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".filter").is_hidden()
    assert page.locator(".todo").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 33, 38)"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_a_phone_scrolls_in_one_direction(visit: Any) -> None:
    page = visit("128", viewport=PHONE, is_mobile=True, has_touch=True).page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("#n-7 .name").tap()
    assert page.locator("#n-7 .more").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


# ---- everybody ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious(visit: Any, scheme: str, viewport: dict[str, int]) -> None:
    page = visit("30", color_scheme=scheme, viewport=viewport, bypass_csp=True).page
    page.locator("#n-7 .name").click()
    page.locator(".rest summary").first.click()
    page.add_script_tag(content=axe())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    told = [(each["id"], each["impact"], each["nodes"][0]["html"][:150]) for each in found]
    assert [each for each in told if each[1] in ("serious", "critical")] == []


# ---- inert --------------------------------------------------------------------------------------------------------------


def test_no_text_runs_asks_or_becomes_markup(visit: Any) -> None:
    found = visit("hostile")
    page = found.page
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    for group in page.locator("#nodes .name").all()[:12]:
        group.click()
    for chip in page.locator(".chip").all():
        chip.click()
    for head in page.locator(".sort").all():
        head.click()
    for place in (0, 10, 40):
        page.fill("#find", STRINGS[place])
    page.fill("#find", "")
    page.hover(".todo")
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    assert found.requests == [page.url.partition("#")[0]]
    assert found.messages == []
    assert page.locator("#nodes > tbody").count() == len(STRINGS)
    tags = set(page.evaluate("[...document.querySelectorAll('*')].map((each) => each.tagName.toLowerCase())"))
    plain = set(
        visit("128").page.evaluate("[...document.querySelectorAll('*')].map((each) => each.tagName.toLowerCase())")
    )
    assert tags <= plain
    assert page.locator("script").count() == 1
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((each) => [...each.attributes].map((one) => [one.name, one.value]))"
    )
    assert [name for name, _value in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")] == []
    assert [value for name, value in attributes if name == "href" and not value.startswith("#")] == []


def test_the_page_forbids_itself_scripts_and_requests(visit: Any) -> None:
    found = visit("4")
    found.page.evaluate(
        """() => {
          const script = document.createElement("script"); script.textContent = "window.owned = 1"; document.body.append(script);
          const image = document.createElement("img"); image.src = "http://127.0.0.1:9/x.png"; document.body.append(image);
          document.body.setAttribute("onclick", "window.owned = 1"); document.body.click();
        }"""
    )
    found.page.wait_for_timeout(200)
    assert found.page.evaluate("window.owned") is None
    assert found.refused == ["http://127.0.0.1:9/x.png"]
    assert len([message for message in found.messages if "Content Security Policy" in message]) == 3


# ---- size and speed -----------------------------------------------------------------------------------------------------


def test_a_thousand_nodes_open_and_filter_at_once(visit: Any, reports: Any) -> None:
    """In seconds of the page's processor, so that whatever else the machine does is not counted."""
    size = reports.of("1000").stat().st_size
    assert size <= 1_000_000 + 1000 * 6_000
    page = visit("4").page
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def processor() -> float:
        return next(
            each["value"] for each in session.send("Performance.getMetrics")["metrics"] if each["name"] == "ProcessTime"
        )

    def timed(action: Any) -> tuple[float, float]:
        before, started = processor(), time.monotonic()
        action()
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        return processor() - before, time.monotonic() - started

    taken = {"open": timed(lambda: page.goto(reports.of("1000").as_uri()))}
    for text in ("h100 n7", "a100", ""):
        taken[f"filter {text!r}"] = timed(lambda text=text: page.fill("#find", text))
    taken["sort"] = timed(lambda: page.click(".h-torch button"))
    told = ", ".join(f"{what} {cpu:.2f} s ({wall:.2f} s by the clock)" for what, (cpu, wall) in taken.items())
    print(f"1,000 nodes: {size:,} bytes; {told}")
    assert max(cpu for cpu, _wall in taken.values()) < SECONDS
