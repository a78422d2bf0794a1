"""The page of systems shows each line where it belongs, and nothing that no line says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gmia_monai.attacks.attackers import ATTACKERS
from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext, append_results
from gmia_monai.report import plain_words
from gmia_monai.report.systems import main, systems_markdown

SHARED = {"n_patients": 10, "n_images": 20}


def _lines(system: str, value: float):
    context = RunContext(system, "cxr64", release_hash="ab" * 8, command=f"make {system} --seeds 3 --steps 100")
    worst = {"attacker": "adaptive_cross", "variant": "two_sided", "attacker_seeds": [0, 1, 2]}
    return [
        context.result(
            "verification_auc.T1.worst.v1",
            Interval(value, value - 0.1, value + 0.05),
            negatives="matched",
            attacker="worst",
            extra=worst,
            **SHARED,
        ),
        context.result("verification_auc.T1.frozen.v1", value - 0.3, negatives="matched", attacker="frozen", **SHARED),
        context.result("paper_linkability_tar.outer.frozen.v1", 0.25, attacker="frozen", **SHARED),
        context.result("local_cloaking_avatars.T2.frozen.v1", 1529.0, attacker="frozen", **SHARED),
    ]


def _line(name: str, value: float, negatives: str | None = None, who: str | None = None, **extra: object) -> Result:
    found = Interval(value, value - 0.01, value + 0.01)
    return RunContext("x", "cxr64").result(name, found, negatives=negatives, attacker=who, extra=extra, **SHARED)


def _tables(page: str, column: str) -> list[dict[str, str]]:
    """Value of a column for each system, in each table that has it."""
    found = []
    for block in page.split("\n\n"):
        if block.startswith("| system") and f"| {column} |" in block:
            header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
            found.append({row[0]: row[header.index(column)] for row in rows})
    return found


def _rows(page: str, column: str) -> dict[str, str]:
    return _tables(page, column)[0]


def test_every_line_stands_in_its_column():
    page = systems_markdown([*_lines("unchanged", 0.9), *_lines("gmia m=0", 0.7)])
    assert _rows(page, "T1 worst, matched") == {
        "unchanged": "0.900 [0.800, 0.950]",
        "gmia m=0": "0.700 [0.600, 0.750]",
    }
    assert "adaptive_cross two-sided" in page
    assert _rows(page, "frozen") == {"unchanged": "0.600", "gmia m=0": "0.400"}
    assert _rows(page, "outer tar") == {"unchanged": "0.250", "gmia m=0": "0.250"}
    assert _rows(page, "LC avatars")["unchanged"] == "1529.0 †"
    assert _rows(page, "T2 worst")["unchanged"] == "–", "no line, no figure"
    assert _rows(page, "updates a refit") == {"unchanged": "100", "gmia m=0": "100"}
    assert _rows(page, "attacker seeds")["unchanged"] == "3" and _rows(page, "resamples")["unchanged"] == "–"
    for section in ("Utility and fidelity", "Retrieval", "Attributes", "Inversion", "budget", "Warning"):
        assert section not in page
    assert page.count("`make unchanged --seeds 3 --steps 100`") == 1


def test_controls_stand_first():
    names = ["gmia m=0", "reconstruction", "gmia m=-0.5", "shuffled", "unchanged", "a system", "noise"]
    page = systems_markdown([line for name in names for line in _lines(name, 0.7)])
    ordered = ["unchanged", "noise", "shuffled", "reconstruction", "a system", "gmia m=-0.5", "gmia m=0"]
    assert list(_rows(page, "T1 worst, matched")) == list(_rows(page, "outer tar")) == ordered


def test_the_page_says_how_the_test_role_was_used():
    page = systems_markdown(_lines("unchanged", 0.9))
    assert "scored once" not in page and page.count("T was scored repeatedly") == 1
    assert "nih128" in page and "nih64" in page and "of one folder" in page


def test_the_command_reads_a_folder(tmp_path, capsys):
    for system in ("a", "b"):
        append_results(tmp_path / "in" / f"{system}.jsonl", _lines(system, 0.8))
    assert main([str(tmp_path / "in"), str(tmp_path / "out.md")]) == 0
    assert "8 results" in capsys.readouterr().out
    assert set(_rows((tmp_path / "out.md").read_text(), "frozen")) == {"a", "b"}
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out.md")]) != 0
    assert "GM-U252" in capsys.readouterr().err


def test_without_lines_the_page_says_so():
    assert "No result lines yet." in systems_markdown([])


def test_the_papers_utility_stands_under_a_row_of_real_training():
    context = RunContext("gmia m=0", "cxr64")
    extra = {"per_finding": {"Effusion": [0.7, 0.6, 0.8], "Atelectasis": [0.6, 0.5, 0.7]}}
    lines = [
        context.result(f"utility_paper_auroc.{part}.small.v1", value, extra=extra, **SHARED)
        for part, value in (("real_to_real", 0.71), ("released_to_real", 0.66))
    ]
    lines.append(context.result("fidelity_psnr.v1", 22.5, **SHARED))
    page = systems_markdown([*_lines("unchanged", 0.9), *lines])
    assert "at 0.5" not in page
    half = [context.result(f"utility_paper_f1_at_half.{p}.small.v1", 0.1, **SHARED) for p in ("real_to_real", "x")]
    assert _rows(systems_markdown([*lines, *half]), "F1 at 0.5") == {"real": "0.100", "gmia m=0": "–"}
    assert _rows(page, "AUROC") == {"real": "0.710", "unchanged": "–", "gmia m=0": "0.660"}
    assert _rows(page, "LPIPS, own trunk")["gmia m=0"] == "–"
    assert "Atelectasis, Effusion" in page and "not 0.5" in page


def test_the_published_distance_replaces_ours():
    ours = [_line("hidden_rate.T2.frozen.v1", 0.9), _line("local_cloaking_avatars.T2.frozen.v1", 41.0)]
    assert _rows(systems_markdown(ours), "HR")["x"] == "0.900 †"
    page = systems_markdown([*ours, _line("paper_hidden_rate.T2.frozen.v1", 0.8)])
    assert _rows(page, "HR")["x"] == "0.800" and _rows(page, "LC avatars")["x"] == "41.0 †"
    both = [_line("paper_hidden_rate.T2.frozen.v1", 0.8), _line("paper_local_cloaking_avatars.T2.frozen.v1", 7.0)]
    assert "†" not in systems_markdown([*ours, *both])


def test_sizes_and_profiles_are_those_of_the_lines():
    lines = _lines("a", 0.8)
    assert "profile `cxr64` (64 px)" in systems_markdown(lines)
    other = [replace(line, profile="cxr128") for line in lines]
    page = systems_markdown([*lines, *other])
    assert "(64 px), `cxr128` (128 px)" in page and set(_rows(page, "frozen")) == {"a (cxr64)", "a (cxr128)"}


def test_mixed_releases_are_named_and_two_lines_for_one_cell_are_refused():
    lines = _lines("a", 0.8)
    mixed = [*lines, *_lines("b", 0.7), replace(lines[0], name="presence_auc.worst.v1", release_hash="cd" * 8)]
    page = systems_markdown(mixed)
    assert "Warning: the lines of a are of 2 different releases" in page and "lines of b" not in page
    assert f"`{'cd' * 8}` (1 lines)" in page
    with pytest.raises(UsageError, match="GM-U335"):
        systems_markdown([*lines, replace(lines[1], seed=1)])


def test_two_lines_for_one_cell_end_the_command_with_their_code(tmp_path, capsys):
    lines = _lines("a", 0.8)
    append_results(tmp_path / "lines.jsonl", lines)
    with (tmp_path / "lines.jsonl").open("a") as file:
        file.write(replace(lines[1], seed=1).to_json() + "\n")
    assert main([str(tmp_path / "lines.jsonl"), str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err.startswith("GM-U335") and not (tmp_path / "page.md").exists()


def test_versions_of_the_suite_are_not_mixed_in_silence():
    new, old = (
        [replace(r, extra={**r.extra, **v}) for r in _lines(*of)]
        for of, v in ((("a", 0.8), {"suite_version": 3}), (("b", 0.7), {"suite_version": 2}))
    )
    assert "of the suite" not in systems_markdown(new)
    page = systems_markdown([*new, *old, *_lines("c", 0.6)])
    assert "lines of a were" not in page
    assert "lines of b were made by version 2 of the suite**; the page has newer ones of the same figures" in page
    assert "lines of c were made by an unnumbered version of the suite" in page
    other = [replace(r, name=f"other_{r.name}") for r in old]
    assert "of the suite" not in systems_markdown([*new, *other]), "a figure that has not changed since"


def _metadata(threat: str, signed: float, two_sided: float, on_choice: tuple[float, float], negatives: str):
    return [
        _line(f"{figure}.{threat}.metadata.v1", value, negatives, "metadata", auc_on_choice=[auc, auc])
        for figure, value, auc in (
            ("verification_auc", signed, on_choice[0]),
            ("verification_auc_two_sided", two_sided, on_choice[1]),
        )
    ]


def test_the_floor_is_the_variant_that_was_better_on_v2():
    lines = [
        *_metadata("T1", 0.75, 0.71, (0.62, 0.74), "matched"),
        *_metadata("T1", 0.96, 0.97, (0.95, 0.94), "random"),
        *_metadata("T2", 0.95, 0.96, (0.97, 0.9), "matched"),
    ]
    page = systems_markdown(lines)
    assert _tables(page, "T1, matched")[0]["x"] == "0.710 [0.700, 0.720] two-sided", "V2 decides, not the judged role"
    assert _tables(page, "T1, random")[0]["x"] == "0.960 [0.950, 0.970] signed", "V2 with negatives of the same kind"
    assert _tables(page, "T2, matched")[0]["x"].startswith("0.950") and "age gap of exactly 0" in page
    assert _tables(page, "T3, matched")[0]["x"] == "–"


def test_plain_words_say_what_the_lines_say():
    worst = {"attacker": "adaptive_cross", "variant": "two_sided"}
    lines = [
        _line("verification_auc.T1.worst.v1", 0.81, "matched", "worst", **worst),
        replace(
            _line("verification_auc.T2.worst.v1", 0.9957, "matched", "worst", attacker="owner", variant="signed"),
            high=0.9984,
        ),
        *_metadata("T1", 0.6, 0.7, (0.6, 0.7), "matched"),
        _line("hidden_rate.T2.frozen.v1", 1.0),
        _line("paper_linkability_tar.outer.frozen.v1", 0.25),
    ]
    words = systems_markdown(lines).split("## What attackers recover")[1].split("\n## ")[0]
    assert (
        "released and real images of other people and takes unlikeness for a sign, too, (`adaptive_cross two-s" in words
    )
    assert "right in 81 of 100 (upper limit 82); metadata alone, in 70 of 100 (upper limit 71)." in words
    assert "right in 99.6 of 100 (upper limit 99.9)" in words and "T3" not in words
    assert "hidden rate 1.000, outer true-accept rate 0.250" in words
    assert "What attackers recover" not in systems_markdown(lines[2:])
    generated = systems_markdown(
        [
            _line("presence_auc.worst.v1", 0.72, attacker="frozen", statistic="largest"),
            _line("membership_auc.worst.v1", 0.65, signal="loss_pixels", auc_without_release=0.61),
        ]
    )
    assert "optimised against (`frozen largest`) is right in 72 of 100 (upper limit 73)." in generated
    assert "`loss_pixels` is right in 65 of 100 (upper limit 66); without the release, in 61 of 100." in generated
    assert "(upper limit 58)" in systems_markdown([_line("verification_auc.T3.worst.v1", 0.5611, "matched", **worst)])


def test_plain_words_name_the_best_attacker_that_adapts():
    lines = [
        _line("verification_auc.T1.worst.v1", 0.95, "matched", "worst", attacker="averaging", variant="signed"),
        *(
            replace(_reid(f"verification_auc.T1.{name}.v1", value, on_choice), attacker=name)
            for name, value, on_choice in (("linear", 0.75, 0.8), ("owner", 0.93, 0.9), ("frozen", 0.94, 0.95))
        ),
    ]
    best = "(`owner signed`), is right in 93 of 100 (upper limit 94), from two images at a time."
    assert best in systems_markdown(lines)
    worst = replace(lines[0], extra={"attacker": "owner", "variant": "signed"})
    assert "The best single" not in systems_markdown([worst, *lines[1:]]), "it stands there already"


def test_singling_out_is_read_by_whom_v2_chose_among_embeddings():
    chosen = {"frozen": (0.99, 0.002), "adaptive_cross": (0.8, 0.9), "owner": (1.0, 0.95)}
    lines = []
    for attacker, (on_choice, hidden) in chosen.items():
        lines.append(_reid(f"verification_auc.T2.{attacker}.v1", 0.7, on_choice))
        lines.append(_line(f"hidden_rate_two_sided.T2.{attacker}.v1", hidden))
        lines.append(_line(f"hidden_rate_person.T2.{attacker}.v1", 1.0))
    page = systems_markdown(lines)
    assert _rows(page, "hidden, two-sided")["x"] == "0.002 [-0.008, 0.012]"
    assert _rows(page, "hidden person, nearest only")["x"].startswith("1.000")
    assert _tables(page, "attacker")[-1]["x"] == "frozen", "V2 says nothing of the embedding of the owner alone"
    without = [line for line in lines if "verification" not in line.name]
    assert _rows(systems_markdown(without), "hidden, two-sided")["x"] == "–", "nobody is chosen without V2"


def _reid(name: str, value: float, on_choice: float) -> Result:
    return _line(name, value, "matched", auc_on_choice=[on_choice], signs=[1.0])


def test_tables_of_attacks_show_whom_v2_chose():
    lines = [
        _reid("verification_auc.T3.snn.v1", 0.6, 0.7),
        _reid("verification_auc.T3.owner.v1", 0.9, 0.65),
        _line("linkability_f1.inner.snn.v1", 0.7, "balanced", "snn", thresholds=[0.25, 0.5], sign=-1.0),
        _line("linkability_f1.inner.owner.v1", 0.9, "balanced", "owner", threshold=0.5, sign=1.0),
        _line("linkability_f1.inner.worst.v1", 0.2, "balanced"),
        _line("linkability_far.inner.snn.v1", 0.4, "balanced", "snn"),
        _line("paper_linkability_f1.inner.frozen.v1", 0.3, "balanced"),
        _line("verification_auc.T1.worst.v1", 0.8, "matched", "worst", attacker="snn", variant="signed"),
        _line("tar_at_far_1pct.T1.snn.v1", 0.33, "matched", "snn"),
        _line("tar_at_far_1pct.T1.owner.v1", 0.44, "matched", "owner"),
        _line("verification_auc_years.T1.worst.10_or_more.v1", 0.77, "matched"),
        _line("verification_auc_subgroup.T1.worst.sex_F.v1", 0.6, "matched"),
        _line("verification_auc_subgroup.T1.worst.view_PA_PA.v1", 0.7, "matched"),
        _line("patient_risk.T1.worst.p95.v1", 0.97, "matched", chance=0.64),
        _line("verification_auc_budget.T1.1_of_2.v1", 0.7, "matched", training_pairs=1500.0),
        _line("verification_auc_budget_gain.T1.v1", 0.02, "matched"),
        _line("verification_auc_updates_gain.T1.v1", 0.04, "matched"),
    ]
    page = systems_markdown(lines)
    [inner] = [t for t in _tables(page, "F1") if t["x"].startswith("0.7")]
    assert inner["x"] == "0.700 [0.690, 0.710]"
    assert _rows(page, "threshold")["x"] == "0.250, 0.500 (sign turned)" and _rows(page, "FAR")["x"].startswith("0.400")
    assert _rows(page, "paper's F1")["x"] == "0.300" and "Outer (T2)" not in page
    assert _rows(page, "TAR at FAR 1 %")["x"].startswith("0.330")
    assert _rows(page, "10 or more")["x"].startswith("0.770") and _rows(page, "under 1")["x"] == "–"
    assert _rows(page, "subgroup with the highest AUC")["x"] == "view PA PA: 0.700 [0.690, 0.710] (2 asked)"
    assert _rows(page, "95th percentile")["x"] == "0.970 [0.960, 0.980] (0.640)"
    assert _rows(page, "1/2")["x"] == "0.700 [0.690, 0.710] (1,500 pairs)"
    assert _rows(page, "gain of the last doubling")["x"].startswith("0.020")
    assert _rows(page, "gain of the updates")["x"].startswith("0.040")


def test_how_a_release_was_made_stands_where_a_line_says_it():
    settings = {"margin_cos": -0.5, "lr": 0.15}
    made = _line("release_converged.v1", 0.93, mean_steps=21.43, settings=settings, description="latent | optimiser")
    page = systems_markdown([made, *_lines("unchanged", 0.9)])
    assert _rows(page, "converged") == {"x": "0.930"}, "unchanged images are not optimised"
    assert _rows(page, "mean steps")["x"] == "21.4" and _rows(page, "settings")["x"] == "`margin_cos=-0.5, lr=0.15`"
    assert "| latent \\| optimiser |" in page
    bare = systems_markdown([_line("release_converged.v1", 1.0)])
    assert _rows(bare, "mean steps")["x"] == _rows(bare, "settings")["x"] == "–"
    assert "How the release was made" not in systems_markdown(_lines("unchanged", 0.9))


def test_tables_of_the_other_attacks():
    lines = [
        _line("rank_1.released_in_real.worst.v1", 0.3, attacker="snn", chance=0.004, gallery_sizes=[373, 1951]),
        _line("attribute_auc.sex.v1", 0.8, accuracy=0.7, most_frequent_class=0.55),
        _line("attribute_auc_real.sex.v1", 0.95),
        _line("inversion_auc.T1.v1", 0.7, "matched", "arcface"),
        _line("inversion_gain.T1.v1", 0.05, "matched", beats_release=True),
        _line("inversion_gain.T2.v1", -0.1, None, beats_release=False),
        _line("memorised_share.pixels.v1", 0.1, share_of_real_held_out=0.02),
        _line("memorised_excess.pixels.v1", 0.08),
        _line("anonymeter_singling_out_risk.snn.v1", 0.1, who="snn", better_than_baseline=True),
        _line("anonymeter_singling_out_risk.frozen.v1", 0.4, who="frozen", better_than_baseline=False),
        _line("anonymeter_inference_risk.age.snn.v1", 0.2, who="snn"),
        _line("presence_auc.worst.v1", 0.6, attacker="owner", statistic="largest"),
        _line("membership_auc.worst.v1", 0.65, who="worst", signal="loss_pixels", auc_without_release=0.61),
    ]
    page = systems_markdown(lines)
    assert _rows(page, "images in the gallery")["x"] == "373 or 1,951" and _rows(page, "chance")["x"] == "0.004"
    assert _rows(page, "AUC, real")["x"].startswith("0.950") and _rows(page, "most frequent class")["x"] == "0.550"
    assert [t["x"] for t in _tables(page, "beats the release")] == ["yes", "no"]
    assert _rows(page, "AUC, output")["x"].startswith("0.700") and _rows(page, "judge")["x"] == "arcface"
    shares, excess = (t["x"] for t in _tables(page, "pixels"))
    assert shares == "0.100 [0.090, 0.110] (0.020)" and excess == "0.080 [0.070, 0.090]"
    assert _rows(page, "singling out")["x"] == "0.400 [0.390, 0.410] * frozen of 2"
    assert _rows(page, "age")["x"].endswith("snn of 1")
    membership = _tables(page, "membership worst (without release)")
    assert [t["x"] for t in membership] == ["0.650 [0.640, 0.660] (0.610)", "loss_pixels"]
    assert _tables(page, "attacker")[-2]["x"] == "owner largest"


def test_every_attacker_of_the_suite_is_described():
    pixels = {name for name in ATTACKERS if name != "metadata"}
    assert pixels <= set(plain_words.ATTACKERS)


def test_an_attacker_who_takes_the_farthest_match_is_marked():
    turned = _line("verification_auc.T1.frozen.v1", 0.93, "matched", "frozen", signs=[-1.0, -1.0])
    mixed = _line("verification_auc.T1.snn.v1", 0.55, "matched", "snn", signs=[-1.0, 1.0])
    worst = _line("verification_auc.T1.worst.v1", 0.93, "matched", "worst", attacker="frozen", variant="signed")
    page = systems_markdown([turned, mixed, worst])
    assert _rows(page, "frozen") == {"x": "0.930 [0.920, 0.940] (far)"}
    assert _rows(page, "snn") == {"x": "0.550 [0.540, 0.560]"}
    assert "optimised against and takes the farthest match (`frozen signed`)" in page
    both_sides = replace(worst, extra=worst.extra | {"variant": "two_sided"})
    assert "and takes the farthest match (" not in systems_markdown([turned, both_sides])


def test_rates_that_matched_negatives_are_too_few_for_are_of_random_ones():
    worst = _line("verification_auc.T1.worst.v1", 0.93, "matched", "worst", attacker="frozen", variant="signed")
    page = systems_markdown([worst, _line("tar_at_far_0_1pct.T1.frozen.v1", 0.53, "random", "frozen")])
    assert _rows(page, "TAR at FAR 0.1 %") == {"x": "–"}
    assert _rows(page, "TAR at FAR 0.1 %, random") == {"x": "0.530 [0.520, 0.540]"}


def test_that_more_updates_find_more_is_said_where_it_is_shown():
    worst = _line("verification_auc.T1.worst.v1", 0.8, "matched", "worst", attacker="frozen", variant="signed")
    gain = _line("verification_auc_updates_gain.T1.v1", 0.03, "matched", "adaptive_cross")
    assert "with three times the updates, `adaptive_cross` is right in 3 more of 100." in systems_markdown(
        [worst, gain]
    )
    none = replace(gain, low=-0.01)
    assert "times the updates, `adaptive_cross`" not in systems_markdown([worst, none])


@pytest.mark.parametrize(("direction", "said"), [(-1.0, True), (1.0, False), (None, False)])
def test_presence_by_the_farthest_image_is_said(direction, said):
    extra = {"attacker": "frozen", "variant": "standardised"} | ({} if direction is None else {"direction": direction})
    page = systems_markdown([*_lines("x", 0.8), _line("presence_auc.worst.v1", 0.7, who="worst", **extra)])
    [sentence] = [s for s in page.split(". ") if s.startswith("Asked which of two patients")]
    assert ("takes the farthest match" in sentence) == said


def test_a_refit_that_kept_its_start_is_marked():
    lines = [
        _line("verification_auc.T1.adaptive_cross.v1", 0.9, "matched", "adaptive_cross", kept_start=[True, True]),
        _line("verification_auc.T1.adaptive_source.v1", 0.8, "matched", "adaptive_source", kept_start=[True, False]),
        _line("verification_auc.T1.owner.v1", 0.7, "matched", "owner", kept_start=[True, True]),
    ]
    page = systems_markdown(lines)
    assert _rows(page, "adaptive_cross") == {"x": "0.900 [0.890, 0.910] (start)"}
    assert "(start)" not in _rows(page, "adaptive_source")["x"] + _rows(page, "owner")["x"], "an owner has more than it"


def test_retrieval_stands_by_size_of_the_gallery():
    lines = [
        _line(
            f"{figure}.released_in_real.worst.v1",
            value,
            who="worst",
            **{f"{figure}_at_gallery": {"10": value, "100": value / 2}},
            **({f"{figure}_at_gallery_by_chance": {"10": 0.1}} if figure == "rank_1" else {}),
        )
        for figure, value in (("rank_1", 0.8), ("rank_5", 0.9), ("map_at_r", 0.6))
    ]
    page = systems_markdown(lines)
    assert _rows(page, "10 images") == {"x": "0.800 (0.100) / 0.900 / 0.600"}
    assert _rows(page, "100 images") == {"x": "0.400 / 0.450 / 0.300"} and "30 images" not in _rows(page, "10 images")
