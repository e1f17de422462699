#!lua flags=no-writes,allow-oom
-- trace: which events of a page of a bucket have a candidate's name. ARGV: tenant, name, first and last place
-- Returns {how many places were looked at, ids}.
local tenant, name, first, last = unpack(ARGV)
local ids, times = {}, redis.call('LRANGE', bucket(tenant, name), first, last)
for _, at in ipairs(times) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key(tenant, 'events'), at, at)) do
    local who = redis.call('HGET', key(tenant, 'event', id), 'who') or ''
    for start = 1, #who, 12 do
      if string.sub(who, start, start + 11) == name then table.insert(ids, id) end
    end
  end
end
return { #times, ids }
