"""``wisepatch plot``."""


def test_broken_line_of_results_is_reported_by_number_and_the_rest_drawn(cli, run_store):
    cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors")
    lines = run_store.results.read_text().splitlines()
    run_store.results.write_text("\n".join([lines[0], '{"run": "x", "val', *lines[1:]]) + "\n")
    result = cli("plot", "--output", "plot.png")
    assert result.exit_code == 0, result.output
    assert "line 2 is not a result" in result.stderr
    assert "drew 3 points" in result.stdout
