#!lua flags=no-writes
-- find: the next events of an index that match, in the order of (score, id), newest or oldest first.
-- Looks at so many at most, so that no call holds Redis up; whoever asks goes on after the last one looked at, which
-- may have moved or gone meanwhile. SORT reads the fields of a whole page in a third of the time of one call an event.
-- ARGV: tenant, index, 1 if newest first, scores from, scores below, go on after (score, id; '' at the beginning),
-- look at most, take at most, filters as JSON: {field, values = {value = true}} or {field, from, below}, a state first
-- Returns {{score, id} to go on after, or nothing at the end, looked at, of these in the state, events}; an event is
-- {id, fields}.
local tenant, index, newest, from, below, score, id, look, take = unpack(ARGV)
local filters = cjson.decode(ARGV[10])
local place, event = key(tenant, index), key(tenant, 'event', '')
look, take = tonumber(look), tonumber(take)

local first, last = redis.call('ZCOUNT', place, '-inf', '(' .. from), redis.call('ZCOUNT', place, '-inf', '(' .. below) - 1
if id ~= '' and newest == '1' then last = math.min(last, rank(place, score, id) - 1) end
if id ~= '' and newest ~= '1' then first = math.max(first, rank(place, score, id, true)) end

-- Ids and the fields that are filtered by. Where an ACL does not allow SORT to read fields, one by one.
local function page(number)
  local offset = newest == '1' and redis.call('ZCARD', place) - 1 - last or first
  local sort = { 'SORT_RO', place, 'BY', 'nosort', 'LIMIT', int(offset), int(number), newest == '1' and 'DESC' or 'ASC', 'GET', '#' }
  for _, filter in ipairs(filters) do
    table.insert(sort, 'GET')
    table.insert(sort, event .. '*->' .. filter.field)
  end
  local flat = redis.pcall(unpack(sort))
  if not flat.err then return flat end
  flat = {}
  for _, id in ipairs(redis.call(newest == '1' and 'ZREVRANGE' or 'ZRANGE', place, offset, offset + number - 1)) do
    table.insert(flat, id)
    for _, filter in ipairs(filters) do table.insert(flat, redis.call('HGET', event .. id, filter.field)) end
  end
  return flat
end

local function fits(filter, value)
  if filter.values then return value and filter.values[value] end
  local at = tonumber(value or nil)
  return at and at >= filter.from and at < filter.below
end

local events, looked, in_state = {}, 0, 0
if first > last then return { {}, 0, 0, events } end
local flat, seen = page(math.min(look, last - first + 1)), nil
for at = 1, #flat, #filters + 1 do
  local passed = 0
  while passed < #filters and fits(filters[passed + 1], flat[at + passed + 1]) do passed = passed + 1 end
  if passed > 0 then in_state = in_state + 1 end
  if passed == #filters then table.insert(events, { flat[at], redis.call('HGETALL', event .. flat[at]) }) end
  looked, seen = looked + 1, flat[at]
  if #events == take then break end
end
local more = looked < last - first + 1
return { more and { redis.call('ZSCORE', place, seen), seen } or {}, looked, in_state, events }
