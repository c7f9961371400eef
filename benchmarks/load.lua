-- wrk's side of a benchmark: one GET target with each key of a file in turn, and the summary as one line of JSON.
-- Arguments behind `--`: the target path, and the file of keys ("-": none).
local requests, turn = {}, 0

function init(args)
  local keys = {}
  if args[2] ~= "-" then
    for key in io.lines(args[2]) do keys[#keys + 1] = key end
  end
  if #keys == 0 then
    requests[1] = wrk.format("GET", args[1])
  end
  for _, key in ipairs(keys) do
    requests[#requests + 1] = wrk.format("GET", args[1], { ["Authorization"] = "Bearer " .. key, ["Host"] = wrk.headers["Host"] })
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'SUMMARY {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "bad_status": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
