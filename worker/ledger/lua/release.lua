#!lua flags=allow-oom
-- release: a task ends that has nothing to settle. ARGV: tenant, stage, token.
end_task(ARGV[1], ARGV[2], ARGV[3], now_ms())
return 0
