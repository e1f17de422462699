"""examrelay's machinery. The one public name is `worker.enqueue`, for receivers of your own."""
