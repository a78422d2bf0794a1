"""The report of an evaluation: self-contained, escaped, honest where figures are missing, and readable by a browser."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from attack_cohorts import SIZE, judged
from PIL import Image
from report_lines import DATA, MORE_DATA, more, results, worst

from gmia_monai.attacks.base import Judged
from gmia_monai.errors import UsageError
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import RunContext
from gmia_monai.report import sections
from gmia_monai.report.attack_sections import attack_sections
from gmia_monai.report.evaluation import evaluation_report, report_handlers
from gmia_monai.report.plots import roc_picture
from gmia_monai.report.systems import systems_markdown


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]


def test_the_page_has_the_figures_and_fetches_nothing(tmp_path):
    page = evaluation_report(
        results(), tmp_path / "report.html", DATA, {"profile of attackers": "quick", "roles": None}
    ).read_text()
    links = _Links()
    links.feed(page)
    assert links.fetched == [] and "script" not in links.tags and "img" not in links.tags
    assert not re.search(r"url\(\s*['\"]?(?!#)", page) and "@import" not in page
    assert links.tags.count("svg") == 3
    assert "0.810" in page and "upper limit 0.840" in page and "adaptive_cross two-sided" in page
    assert "is at most 0.60, the aim of this benchmark under T1, by all attackers, who holds the system" in page
    assert "red: the value is 0.75 or more" in page
    assert page.index("Floor: metadata alone") < page.index("Another image of the person (T1)</h2>")
    assert "<dt>command</dt><dd><code>judge it --seeds 3</code></dd>" in page and "<dt>roles</dt><dd>–</dd>" in page
    assert ">TAR, 0.1\u00a0%</th>" in page and "0.123" in page
    assert "quick" in page and "ab" * 8 in page and "1,326" in page


def test_the_tone_follows_the_upper_limit(tmp_path):
    for value, high, tone in ((0.81, 0.84, "bad"), (0.65, 0.7, "mid"), (0.55, 0.65, "mid"), (0.52, 0.59, "good")):
        context = RunContext("x", "p")
        line = context.result(
            "verification_auc.T1.worst.v1",
            Interval(value, value - 0.02, high),
            n_patients=9,
            n_images=9,
            negatives="matched",
            attacker="worst",
            extra={"attacker": "snn", "variant": "signed"},
        )
        page = evaluation_report([line], tmp_path / "r.html").read_text()
        assert f'<b class="{tone}">{value:.3f}</b>' in page
        for name, negatives in (("verification_auc.T2.worst.v1", "matched"), ("presence_auc.worst.v1", None)):
            other = replace(line, name=name, negatives=negatives)
            page = evaluation_report([other], tmp_path / "r.html").read_text()
            shown = "mid" if tone == "good" else tone  # no aim was set for these
            assert f'<b class="{shown}">{value:.3f}</b>' in page


def test_weak_attackers_call_nothing_good_and_random_negatives_stand_beside(tmp_path):
    lines = [worst("verification_auc.T1.worst.v1", v, kind) for v, kind in ((0.52, "matched"), (0.68, "random"))]
    for settings, tone in (({}, "good"), ({"notes.strength": "1 attacker seed instead of 3"}, "mid")):
        page = evaluation_report(lines, tmp_path / "r.html", settings=settings).read_text()
        [(shown, value, note)] = _cards(page).values()
        assert (shown, value) == (tone, "0.520") and "random negatives: 0.680" in note
        assert ("1 attacker seed instead of 3" in page) == bool(settings)


def test_without_an_interval_a_card_claims_nothing(tmp_path):
    lines = [
        RunContext("x", "p").result(
            name, value, n_patients=9, n_images=9, negatives=kind, attacker="worst", extra={"attacker": "snn"}
        )
        for name, value, kind in (
            ("verification_auc.T1.worst.v1", 0.55, "matched"),
            ("verification_auc.T2.worst.v1", 0.9, "matched"),
            ("presence_auc.worst.v1", 0.52, None),
        )
    ]
    page = evaluation_report(lines, tmp_path / "r.html", settings={"policy": "unlinkable"}).read_text()
    cards = _cards(page)
    assert len(cards) == 3 and {tone for tone, _, _ in cards.values()} == {""}
    assert all("upper limit" not in note and "without an interval" in note for _, _, note in cards.values())


def test_a_threat_model_under_which_no_pixels_were_judged_has_no_card(tmp_path):
    of = {"T1": "metadata", "T2": "frozen"}
    lines = [worst(f"verification_auc.{t}.worst.v1", 0.9, "matched", attacker=by) for t, by in of.items()]
    page = evaluation_report(lines, tmp_path / "r.html").read_text()
    assert list(_cards(page)) == ["The very source image (T2)"]


def test_notes_of_the_case_stand_under_the_headline(tmp_path):
    settings = {"notes.image_size": "attackers <learned> at another size", "notes.links": "", "seeds": "[0]"}
    page = evaluation_report(results(), tmp_path / "r.html", settings=settings).read_text()
    note = page.index("<b>image size:</b> attackers &lt;learned&gt; at another size")
    assert page.index("</b>\n<span") < note < page.index("An area under the ROC curve") < page.index("<h2>")
    assert "<b>links:</b>" not in page
    generated = [r for r in results() if "worst" not in r.name]
    page = evaluation_report(generated, tmp_path / "r.html", settings=settings).read_text()
    assert 'class="headline"' not in page and page.index("<b>image size:</b>") < page.index("<h2>")
    assert 'class="notes"' not in evaluation_report(results(), tmp_path / "r.html").read_text()


@pytest.mark.parametrize("in_loss", ["small", "small_densenet", "densenet121"])
def test_the_papers_table_is_of_the_network_in_the_loss(in_loss):
    lines = [
        RunContext("x", "cxr128").result(
            f"utility_paper_auroc.{part}.{name}.v1",
            value + (0.1 if part == "real_to_real" else 0),
            n_patients=9,
            n_images=9,
            extra={"per_finding": {}} | ({"in_loss": True} if name == in_loss != "small" else {}),
        )
        for name, value in (("small", 0.61), ("small_densenet", 0.62), ("densenet121", 0.63))
        for part in ("real_to_real", "released_to_real")
    ]
    value = {"small": 0.61, "small_densenet": 0.62, "densenet121": 0.63}[in_loss]
    page = systems_markdown(lines).split("Table 2")[1].split("Table 3")[0]
    rows = {cells[1].strip(): cells[4].strip() for row in page.splitlines() if len(cells := row.split("|")) > 4}
    assert rows["x"] == f"{value:.3f}" and rows["real"] == f"{value + 0.1:.3f}"


def _cards(page: str) -> dict[str, tuple[str, str, str]]:
    """Tone, value and note by title."""
    pattern = r'<div class="card"><span class="faint">(.*?)</span>\s*<b class="(.*?)">(.*?)</b>\s*<span.*?>(.*?)</span>'
    return {title: found for title, *found in re.findall(pattern, page, re.S)}


def test_a_release_without_pairs_has_cards_of_presence_and_membership(tmp_path):
    lines = [
        worst("presence_auc.worst.v1", 0.8, None, attacker="frozen", statistic="largest"),
        worst("membership_auc.worst.v1", 0.9, None, signal="loss", auc_without_release=0.88),
    ]
    cards = _cards(evaluation_report(lines, tmp_path / "r.html").read_text())
    assert list(cards) == ["Among the sources? (presence)", "Learned from? (membership)"]
    tone, value, note = cards["Among the sources? (presence)"]
    assert (tone, value) == ("bad", "0.800") and "upper limit 0.830" in note and "frozen largest" in note
    tone, value, note = cards["Learned from? (membership)"]
    assert (tone, value) == ("", "0.900") and "without the release 0.880" in note


def test_chance_is_drawn_where_the_lines_have_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sections, "gallery_picture", lambda *given: drawn.append(given) or "")
    curve, chance = {"10": 0.8, "100": 0.4}, {"10": 0.2, "100": 0.03}
    for extra in ({}, {"rank_1_at_gallery_by_chance": chance}):
        lines = [
            worst(f"rank_1.{direction}.worst.v1", 0.4, None, rank_1_at_gallery=curve, **extra)
            for direction in ("released_in_real", "real_in_released")
        ]
        page = evaluation_report(lines, tmp_path / "r.html").read_text()
        assert ("line of dots is chance" in page) == bool(extra)
    assert [found for _, found, _ in drawn] == [[], [chance]]
    assert drawn[0][0] == {"released in real": curve, "real in released": curve}
    drawn.clear()
    lines += [worst("map_at_r.released_in_real.worst.v1", 0.3, None, map_at_r_at_gallery={"10": 0.6})]
    page = evaluation_report(lines, tmp_path / "r.html").read_text()
    assert [label for _, _, label in drawn] == ["rank-1", "mAP@R"] and "mAP@R of the strongest attacker" in page
    assert drawn[1][0] == {"released in real": {"10": 0.6}}


def test_attacks_have_a_row_an_attacker():
    lines = [
        worst("linkability_f1.inner.snn.v1", 0.7, "balanced"),
        worst("linkability_far.inner.snn.v1", 0.3, "balanced"),
        worst("linkability_f1.outer.frozen.v1", 0.8, "balanced"),
        worst("anonymeter_inference_risk.sex.snn.v1", 0.1, None),
        worst("anonymeter_linkability_risk.snn.v1", 0.2, None),
        worst("inversion_auc.T1.v1", 0.6, "matched"),
        worst("inversion_auc.T1.v1", 0.65, "random"),
        worst("paper_hidden_rate.T2.frozen.v1", 0.9, None),
        worst("hidden_rate_two_sided.T2.frozen.v1", 0.4, None),
    ]
    found = {s["title"]: (s["header"], s["rows"]) for s in attack_sections(lines)}
    header, rows = found["Linkability"]
    assert header == ["by", "F1", "FAR"]
    assert rows[0] == ["inner, snn", "0.700 (0.680 to 0.730)", "0.300 (0.280 to 0.330)"]
    assert rows[1] == ["outer, frozen", "0.800 (0.780 to 0.830)", "–"]
    header, rows = found["Singling out, linking, inferring"]
    assert header == ["by", "inference risk sex", "linkability risk"] and rows[0][0] == "snn" and len(rows) == 1
    assert [row[0] for row in found["Inversion"][1]] == ["T1, matched", "T1, random"], "no line hides another"
    assert found["Singling out, as published"][0] == ["by", "paper hidden rate"]
    assert found["Singling out, by patient and from both sides"][0] == ["by", "hidden rate two sided"]


def test_linked_releases_are_a_failure_only_where_they_must_not_be(tmp_path):
    lines = [worst("verification_auc.T3.worst.v1", 0.9, "matched", attacker="snn")]
    tones = {}
    for policy in ("unlinkable", "pseudonymous", "k_anonymous", ""):
        page = evaluation_report(lines, tmp_path / "r.html", settings={"policy": policy}).read_text()
        tones[policy], _, note = _cards(page)["Two released images (T3)"]
        assert ("promises" in note) == (policy == "pseudonymous") and ("no policy" in note) == (policy == "")
    assert tones == {"unlinkable": "bad", "pseudonymous": "", "k_anonymous": "", "": ""}


def test_names_are_escaped(tmp_path):
    page = evaluation_report(results("<script>alert(1)</script>"), tmp_path / "r.html", DATA).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_same_lines_give_the_same_page(tmp_path):
    one, two = (evaluation_report(results(), tmp_path / name, DATA).read_bytes() for name in ("a.html", "b.html"))
    assert one == two


def test_lines_of_two_systems_or_none_are_refused(tmp_path):
    for lines in ([], results() + results("other")):
        with pytest.raises(UsageError, match="GM-U330"):
            evaluation_report(lines, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_each_section_stands_where_there_are_lines_for_it(tmp_path):
    page = evaluation_report(results() + more(), tmp_path / "r.html", MORE_DATA).read_text()
    for title in (
        *["Patients and subgroups", "Years between the images", "The attacker&#39;s budget", "Membership", "Left out"],
        *["What is left for diagnosis", "What diagnosis loses", "Fidelity", "How the release was made"],
    ):
        assert f"<h2>{title}</h2>" in page, title
    assert "k_to_one &lt;release&gt;" in page and "Latent &lt;optimiser&gt;" in page
    for name, value in {"share converged": "0.930", "mean steps of an image": "21.4", "margin_cos": "-0.5"}.items():
        assert f'<tr><td>{name}</td><td class="n">{value}</td></tr>' in page
    rows = re.findall(r"<tr><td>released to real, small</td>(.*?)</tr>", page, re.S)
    left, lost = (re.findall(r">([^<>]+)</td>", row) for row in rows)
    assert left[0] == "0.680 (0.660\u00a0to\u00a00.700)" and lost[0] == "0.010 (0.000\u00a0to\u00a00.019)"
    assert lost[-1] == "yes"
    assert page.count("<svg") == 6
    plain = evaluation_report(results(), tmp_path / "p.html", DATA).read_text()
    assert "Years between" not in plain and "Left out" not in plain


def test_images_are_shown_only_where_asked_and_with_a_banner(tmp_path):
    images = np.linspace(0, 1, 3 * 16 * 16, dtype=np.float32).reshape(3, 1, 16, 16)
    hidden = evaluation_report(results(), tmp_path / "a.html", DATA).read_text()
    assert "<img" not in hidden and 'class="banner"' not in hidden
    shown = evaluation_report(results(), tmp_path / "b.html", DATA, shown=(images, 1 - images)).read_text()
    assert 'class="banner"' in shown
    code = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert code is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(code.group(1))))).astype(float)
    assert picture.shape == (64, 96)
    # Real images stand above: the first begins dark, its negative bright.
    assert picture[:8, :8].mean() < 30 and picture[32:40, :8].mean() > 225


def test_the_handler_shows_one_image_a_patient(tmp_path):
    lines = AttackLines(tmp_path, "ab" * 8, ["verification"])
    lines.path("verification").parent.mkdir()
    lines.path("verification").write_text("".join(r.to_json() + "\n" for r in results()))
    case = judged("unchanged")
    case = Judged(case.real, replace(case.release, policy="pseudonymous"))
    page = report_handlers(lines, None, case, n_shown=5)[0].finish().read_text()
    assert "<dt>policy</dt><dd>pseudonymous</dd>" in page
    code = re.search(r'base64,([^"]+)"', page)
    assert code is not None
    picture = Image.open(io.BytesIO(base64.b64decode(code.group(1))))
    assert picture.size == (5 * 2 * SIZE, 2 * 2 * SIZE)
    assert "<img" not in report_handlers(lines, None, judged("unchanged"))[0].finish().read_text()


def test_of_many_attackers_the_strongest_have_colours_of_their_own():
    x = np.linspace(0, 1, 50)
    curves = {f"a{i:02}": np.stack([x, x ** (1 / (1 + i))]) for i in range(12)} | {"metadata": np.stack([x, x])}
    strokes = Counter(re.findall(r"stroke: (#[0-9a-f]{6})", str(roc_picture(curves))))
    assert strokes["#c9ced4"] == 4 + 1, "four curves in grey, and their place in the legend"
    assert str(roc_picture({"b": curves["a01"]})).count("#c9ced4") == 0


def test_the_floor_is_read_by_the_variant_that_was_better_on_v2(tmp_path):
    context, shared = RunContext("gmia m=-0.5", "cxr64"), {"n_patients": 9, "n_images": 9, "negatives": "matched"}
    better = context.result(
        "verification_auc_two_sided.T1.metadata.v1",
        Interval(0.72, 0.7, 0.74),
        attacker="metadata",
        extra={"auc_on_choice": [0.74]},
        **shared,
    )
    of_source = {"attacker": "metadata", "extra": {"auc_on_choice": [0.94]}}
    source = context.result("verification_auc.T2.metadata.v1", 0.95, **of_source, **shared)
    page = evaluation_report([*results(), better, source], tmp_path / "r.html").read_text()
    assert '<b class="">0.720</b>' in page and "T1, no pixels, two-sided; T2: 0.950" in page


def test_pictures_are_files_of_their_own_too(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "of_an_earlier_run_1.svg").write_text("x")
    images = np.zeros((1, 1, 16, 16), dtype=np.float32)
    evaluation_report(results(), tmp_path / "r.html", DATA, shown=(images, images), figures_dir=folder)
    names = sorted(p.name for p in folder.iterdir())
    assert names == [
        "another_image_of_the_person_t1_1.svg",
        "another_image_of_the_person_t1_2.svg",
        "finding_the_person_in_a_gallery_1.svg",
    ]
    for name in names:
        assert ElementTree.parse(folder / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
