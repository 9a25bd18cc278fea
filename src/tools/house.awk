# house.awk: who may include whom, and that no files include each other in a circle.
#
#   awk -f house.awk FILE...        (paths from the folder above src/)
#
# A folder may include itself and what its row below names; src/*.c, which puts
# the parts together, may include everything.  A file's header counts as the file.
# Prints FILE:LINE: what is wrong; exits with 1 when something is.

BEGIN {
	may["base"] = ""
	may["net"] = "base"
	may["logic"] = "base"
	may["seam"] = "base net logic"
	may["shmem"] = "base logic"
	may["config"] = "base net seam"
	may["outbox"] = "base logic seam shmem"
	may["session"] = "base net logic seam shmem config outbox"
	may["worker"] = "base net logic seam shmem config outbox"
	# These libraries are known to one folder each.
	only["curl/curl.h"] = "net base"
	only["cJSON.h"] = "seam"
}

function folder(path) {
	return split(path, part, "/") > 2 ? part[2] : ""
}

function unit(path) {
	sub(/\.[ch]$/, "", path)
	return path
}

function complain(text) {
	print text
	bad = 1
}

FNR == 1 {
	here = folder(FILENAME)
	if (here != "" && !(here in may))
		complain(FILENAME ":1: src/" here " is no folder of the house")
}

/^#[ \t]*include[ \t]*[<"]/ {
	name = $0
	sub(/^#[ \t]*include[ \t]*[<"]/, "", name)
	sub(/[>"].*/, "", name)
	if (name in only && index(" " only[name] " ", " " here " ") == 0)
		complain(FILENAME ":" FNR ": " here " may not know " name)
	there = name
	if (sub(/\/.*/, "", there) == 0 || !(there in may) || $0 ~ /</)
		next
	if (here != "" && there != here && index(" " may[here] " ", " " there " ") == 0)
		complain(FILENAME ":" FNR ": " here " may not know " there)
	from = unit(FILENAME)
	to = "src/" unit(name)
	if (from != to && !((from, to) in line)) {
		line[from, to] = FILENAME ":" FNR
		next_of[from] = next_of[from] " " to
	}
}

# Who may read which clock: the monotonic one is base/clock.c's, and the local one is
# read only where it is written into rows, compared with them, or shown by a view.
/clock_gettime|gettimeofday/ && FILENAME != "src/base/clock.c" {
	complain(FILENAME ":" FNR ": only src/base/clock.c reads that clock")
}

/GetCurrentTimestamp/ && index(" base net logic seam config ", " " here " ") > 0 {
	complain(FILENAME ":" FNR ": " here " may not read the local clock")
}

# Follows the includes of a file; the path to it is in path[1..depth].
function visit(file, depth,    list, n, i, j, text) {
	state[file] = 1
	path[depth] = file
	n = split(next_of[file], list, " ")
	for (i = 1; i <= n; i++) {
		if (state[list[i]] == 1) {
			text = list[i]
			for (j = depth; path[j] != list[i]; j--)
				text = path[j] " -> " text
			complain(line[file, list[i]] ": a circle: " list[i] " -> " text)
		} else if (state[list[i]] == 0)
			visit(list[i], depth + 1)
	}
	state[file] = 2
}

END {
	for (file in next_of)
		if (state[file] == 0)
			visit(file, 1)
	exit bad
}
