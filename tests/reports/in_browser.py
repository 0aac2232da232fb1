"""The page in a real browser: its script, at every width, in light and dark mode, with keyboard and screen reader.

    nox -s browser

Needs Chromium (such as Debian's `chromium`) on the path, or named by the environment variable CHROMIUM.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness.evidence.kinds import Kind
from harness.record import Record
from reports.page import fits, html
from results.compare import compare
from tests.pairs import certificate
from tests.reports import fitted
from tests.reports.synthetic import FAILED, PLAN, TIMES, machine

pytestmark = pytest.mark.long
expect.set_options(timeout=20_000)  # While other tests run, a browser may have to wait for the processor.

WIDTHS = (360, 768, 1200, 1600)
SERIOUS = {"serious", "critical"}
UNPROFILED = {"makeup", "roofline"}
"""Sections that show nothing if no step was profiled."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    where = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert where, "there is no Chromium: install Debian's package chromium, or name one by the variable CHROMIUM"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(text: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that must write nothing to the console, and request nothing but itself."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert said == []


def arms(page: Page) -> list[str]:
    """The arms that the table shows, from the top down."""
    return [arm.get_attribute("data-arm") or "" for arm in page.locator("tbody.arm:visible").all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_and_nothing_is_hard_to_read(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS] == []


def test_the_table_is_sorted_and_filtered(page: Page) -> None:
    everything = arms(page)
    page.locator('#arms th[data-key="speedup"] button').click()
    assert arms(page)[0].endswith("amp_bf16+compile+adamw_fused")
    page.locator('#arms th[data-key="speedup"] button').click()
    assert arms(page)[0].endswith("qat_int8")
    page.locator('select[name="workload"]').select_option("bert/mini")
    page.locator('select[name="outcome"]').select_option("faster")
    page.locator('input[name="text"]').fill("compile")
    assert set(arms(page)) == {
        f"bert/mini {name}" for name in ("compile", "amp_bf16+compile", "amp_bf16+compile+adamw_fused")
    }
    expect(page.locator(".filters output")).to_have_text(f"3 of {len(everything)} arms")


def test_a_link_shows_the_same_again(page: Page, browser: Browser, address: str) -> None:
    page.locator('#arms th[data-key="step_time_s"] button').click()
    page.locator('select[name="workload"]').select_option("gpt2/tiny")
    page.get_by_role("radio", name="Peak memory").check()
    page.locator('.tile[data-arm="gpt2/tiny compile"]').click()
    shown, link = arms(page), page.url
    assert link.startswith(f"{address}#")
    other = browser.new_page()
    other.goto(link)
    assert arms(other) == shown
    assert other.get_by_role("radio", name="Peak memory").is_checked()
    tile = other.locator('.tile[data-arm="gpt2/tiny pure_bf16"]')
    assert (tile.locator(".value").text_content() or "").startswith("0.5")
    expect(other.locator('.tile[data-arm="gpt2/tiny compile"]')).to_contain_class("linked")
    other.close()


def test_a_link_to_what_is_not_there_shows_everything(page: Page, address: str) -> None:
    everything = arms(page)
    page.goto(f"{address}#workload=no/such&outcome=nothing&sort=none&figure=none&arm=none")
    page.reload()
    assert arms(page) == everything


def test_pointing_at_an_arm_marks_it_in_every_picture(page: Page) -> None:
    arm = "gpt2/tiny checkpoint_activations"
    page.locator(f'.tile[data-arm="{arm}"]').hover()
    marked = page.locator(".linked")
    assert {part.get_attribute("data-arm") for part in marked.all()} == {arm}
    # In every section that shows arms, whatever the chart.
    drawn = set(page.evaluate("[...document.querySelectorAll('section:has([data-arm])')].map((item) => item.id)"))
    seen = set(page.evaluate("[...document.querySelectorAll('section:has(.linked)')].map((item) => item.id)"))
    always = {section.name for section in html.SECTIONS if not section.optional} - UNPROFILED
    assert seen == drawn >= {"answer", "intervals", "arms", *always}
    page.locator("h1").hover()
    assert page.locator(".linked").count() == 0
    curve = page.locator('#total-time [data-arm="gpt2/tiny qat_int8"] > path').first
    curve.scroll_into_view_if_needed()
    end = curve.evaluate(
        "path => { const {x, y} = path.getPointAtLength(path.getTotalLength()).matrixTransform(path.getScreenCTM());"
        " return [x, y]; }"
    )
    # Next to its end, off the line itself.
    page.mouse.move(end[0] - 1, end[1] + 3)
    assert "gpt2/tiny qat_int8" in {part.get_attribute("data-arm") for part in marked.all()}
    tip = page.locator("#tip")
    expect(tip).to_contain_text("qat_int8")
    place = tip.bounding_box()
    assert place is not None
    assert place["y"] + place["height"] <= end[1] + 3
    assert abs(place["x"] + place["width"] / 2 - end[0]) <= place["width"]
    # The browser may report a scroll late, after the mark was reached.
    page.evaluate("dispatchEvent(new Event('scroll'))")
    assert tip.bounding_box() == place
    page.locator("h1").hover()
    assert not tip.is_visible()


def test_the_matrix_is_walked_with_the_arrow_keys(page: Page) -> None:
    assert page.locator('.tile[tabindex="0"]').count() == 1
    page.locator('.tile[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    chosen = page.evaluate("document.activeElement.dataset.arm")
    assert chosen.endswith(" amp_bf16+compile")
    assert parse_qs(urlparse(page.url).fragment)["arm"] == [chosen]


def test_every_mark_says_its_figures_to_the_keyboard(page: Page) -> None:
    page.locator("#intervals .wide .point").first.focus()
    expect(page.locator("#tip")).to_be_visible()
    assert "x [" in (page.locator("#tip").text_content() or "")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


def test_the_theme_is_chosen_and_kept(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate(background) != light


def test_print_shows_the_matrix_and_none_of_the_controls(page: Page) -> None:
    page.emulate_media(media="print")
    expect(page.locator(".matrix")).to_be_visible()
    for control in ("#theme", ".filters", ".switch", "button.copy"):
        expect(page.locator(control).first).to_be_hidden()


@pytest.mark.parametrize("disturbed", [True, False])
def test_a_page_without_any_figure_says_nothing_on_the_console(
    browser: Browser, records: list[Record], disturbed: bool, tmp_path: Path
) -> None:
    kept = [dataclasses.replace(item, disturbed=True, disturbances=["busy"]) for item in records] if disturbed else []
    (tmp_path / "page.html").write_text(html.render(compare(kept, machine()), kept, machine(), PLAN), encoding="utf-8")
    opened, said = browser.new_page(), list[str]()
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto((tmp_path / "page.html").as_uri())
    expect(opened.locator("#theme")).to_be_visible()
    assert opened.locator(".tile").count() == (2 * (len(TIMES) + len(FAILED) - 1) if disturbed else 0)
    opened.close()
    assert said == []


def test_what_gets_into_the_page_does_not_run(browser: Browser, address: str) -> None:
    opened = browser.new_page()
    opened.goto(address)
    opened.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            const image = document.createElement("div");
            image.innerHTML = '<img src="data:," onerror="window.ran = true">';
            const link = document.createElement("a");
            link.href = "javascript:window.ran = true";
            document.body.append(script, image, link);
            link.click();
        }"""
    )
    # Once another image has been handled, the error handler of the broken one has run.
    opened.evaluate(
        "() => new Promise(done => { const next = new Image(); next.onerror = done; next.src = 'data:,'; })"
    )
    assert opened.evaluate("() => window.ran") is None
    opened.close()


def test_without_a_script_everything_is_there(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    expect(plain.locator(".matrix .tile").first).to_be_visible()
    assert plain.locator("tbody.arm:visible").count() == plain.locator("tbody.arm").count() > 10
    expect(plain.locator(".switch")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_map_of_what_fits_is_read_at_every_width(
    browser: Browser, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    file = tmp_path / "fits.html"
    file.write_text(fits.render(fitted.several()), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(file.as_uri())
    for folded in page.locator("summary").all():
        folded.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS] == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_bar_says_what_its_step_is_made_of(
    browser: Browser, records: list[Record], tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    shares = {kind: 1 / len(Kind) for kind in Kind}
    seen = certificate(
        forward_share=0.3,
        backward_share=0.5,
        optimizer_share=0.2,
        kinds=list(shares),
        kind_shares=list(shares.values()),
    )
    profiled = [dataclasses.replace(item, certificate=seen if item.certificate else None) for item in records]
    file = tmp_path / "report.html"
    file.write_text(html.render(compare(profiled, machine()), profiled, machine(), PLAN), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    bar = page.locator('#makeup .point[data-arm="gpt2/tiny amp_bf16"]').first
    bar.scroll_into_view_if_needed()
    bar.focus()
    expect(page.locator("#tip")).to_contain_text("forward 30 %, backward 50 %, optimizer 20 %")
    bar.hover()
    expect(page.locator('.tile[data-arm="gpt2/tiny amp_bf16"]')).to_contain_class("linked")
    found = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS] == []
    page.close()
    assert errors == []
