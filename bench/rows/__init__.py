"""One module a row of docs/design.md's budgets: `measure` gives its lines. See bench/README.md."""
