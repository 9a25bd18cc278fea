# seam_ik: build with PGXS.
#
#   make, make install, make installcheck    as for every PGXS extension
#   make demo      bookings and their Instant Keys, in a throwaway cluster
#   make test      every test, in throwaway clusters
#   make test-matrix  the same on each release of PostgreSQL, in root folders of its own
#   make unit      those of the decisions alone, without a server, in seconds
#   make bench     speed, next to other ways of calling HTTP from a database
#   make deb       Debian packages for what PostgreSQL the distribution has, in build-deb
#   make dist      the archive that goes to PGXN
#   make test-install  a bare Debian gets a key as README.md says, by package and by source
#   make counts    what a warm call takes, in instructions, allocations, system calls
#   make pictures  draws the pictures of the pages anew, from src/doc/pictures
#   make lint      formatting and static analysis; "make indent" reformats
#   make memcheck  tests under AddressSanitizer and UndefinedBehaviorSanitizer
#
# The targets from "demo" on first install what they lack with apt (Debian 12
# or later), work on a copy in a temporary folder, and leave nothing behind.

EXTENSION = seam_ik
MODULE_big = seam_ik
PGFILEDESC = "seam_ik - Seam Instant Keys for PostgreSQL"

PG_CONFIG ?= pg_config

.DEFAULT_GOAL := all

# The regression tests, in the order in which they run.
REGRESS = contract settings errors formats encodings batch life triggers
# Every database is made with the same encoding and collation, whatever the
# server's own are, so that the expected output is the same everywhere.
REGRESS_OPTS = --encoding=UTF8 --no-locale

# These do not need PostgreSQL or libcurl to be there already.
DEV_TARGETS = demo test test-matrix test-install unit bench deb dist counts pictures lint indent memcheck
.PHONY: $(DEV_TARGETS)

demo:
	@src/demo/run
test:
	@src/test/run
test-matrix:
	@src/test/matrix
test-install:
	@src/test/newcomer
deb:
	@src/tools/deb
dist:
	@src/tools/dist
memcheck:
	@src/test/run --memcheck
unit:
	@src/test/unit/run
bench:
	@src/bench/run
counts:
	@src/bench/counts
pictures:
	@src/doc/pictures/run
lint:
	@src/tools/lint
indent:
	@src/tools/lint --fix

ifneq ($(filter-out $(DEV_TARGETS),$(or $(MAKECMDGOALS),all)),)

# In a build outside the source tree VPATH says where the sources are.
top := $(if $(VPATH),$(VPATH)/)
# The folders of the library; the rest of src is tests, tools and pages.
HOUSE = base net logic seam shmem config outbox session worker
OBJS = $(patsubst $(top)%.c,%.o,$(sort $(wildcard $(top)src/*.c $(HOUSE:%=$(top)src/%/*.c))))
DATA = $(patsubst $(top)%,%,$(sort $(wildcard $(top)sql/$(EXTENSION)--*.sql)))
# The pages lie below $(pg_config --docdir)/seam_ik as they lie here, so that their links
# hold; other extensions have a README.md, too.
DOCS = README.md
PAGES = $(patsubst $(top)%,%,$(sort $(wildcard $(top)src/doc/*.md $(top)src/doc/*.svg)))
override docmoduledir := $(EXTENSION)

# The control file is the one place that states the version.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(top)$(EXTENSION).control)

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error "$(PG_CONFIG)" knows of no PGXS: install PostgreSQL's development files (Debian: postgresql-server-dev-NN) or set PG_CONFIG)
endif
ifneq ($(shell pkg-config --exists libcurl libcjson && echo found),found)
$(error pkg-config finds no libcurl or libcjson: install their development files (Debian: pkg-config libcurl4-openssl-dev libcjson-dev))
endif

# -isystem: the warnings below are about our code, not PostgreSQL's headers.
PG_CPPFLAGS = -DSEAM_IK_VERSION='"$(EXTVERSION)"' \
	-I$(top)src -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(shell pkg-config --cflags libcurl libcjson)
SHLIB_LINK = $(shell pkg-config --libs libcurl libcjson)
# The server loads libraries with their symbols global, and before 16 it does not
# hide ours: they shall mean our own, whatever another library calls its own.
ifeq ($(shell uname),Linux)
SHLIB_LINK += -Wl,-Bsymbolic
endif

# The functions that PostgreSQL and libcurl call back have parameters that not
# every one of them needs.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter
# Because of -Bsymbolic, above, the compiler may call and inline our functions directly.
ifeq ($(shell uname),Linux)
PG_CFLAGS += -fno-semantic-interposition
endif
ifeq ($(WERROR),1)
PG_CFLAGS += -Werror
endif

# Bitcode for the JIT compiler is left out where the clang that built
# PostgreSQL is not installed.
CLANG_OF_PG := $(shell sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)
ifeq ($(shell command -v $(or $(CLANG_OF_PG),clang)),)
override with_llvm := no
endif

include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(wildcard $(HOUSE:%=$(top)src/%/*.h)) $(top)$(EXTENSION).control $(top)Makefile

pagesdir = $(DESTDIR)$(docdir)/$(docmoduledir)/src/doc
install: install-pages
uninstall: uninstall-pages
.PHONY: install-pages uninstall-pages
install-pages:
	$(MKDIR_P) '$(pagesdir)'
	$(INSTALL_DATA) $(addprefix $(top),$(PAGES)) '$(pagesdir)'/
uninstall-pages:
	rm -f $(addprefix '$(pagesdir)'/, $(notdir $(PAGES)))

ifdef VPATH
$(shell mkdir -p src $(HOUSE:%=src/%))
endif

endif
