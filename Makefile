# Builds and installs the extension (PGXS), and names everything else that can be done here.
#
#   make, make install            the extension; needs the server's headers and libcurl
#   make INJECT=1                 the same, with points at which a test can stop a process
#   make programs                 gpu-orch-worker, runpod-sim and the other programs beside it
#   make install-programs         into $(prefix)/bin, /usr/local/bin by default; uninstall-programs
#   make test, make demo          install the packages that are missing (as root, on Debian), build, run
#   make check                    the lint checks alone
#   make dates                    the tests of SQL at awkward dates and in awkward time zones
#   make load                     the tests with short timeouts on a busy machine
#   make roots                    what the README says, typed into bare Debian systems
#   make bench, make chaos        where there are benchmarks and chaos tests
#   make bench-history            views in a database with 10,000,000 ended tasks
#   make bench-retention          claims while a tenth of these is removed
#   make ddl-storm                tables changed under load, and what is left compared
#   make hardened                 the suites on a server that checks itself
#   make format, format-check     the layout of the C sources, by clang-format
#
# PG_CONFIG chooses the server. Must not need a server's headers for targets that build nothing of
# the extension: on a bare machine "make test" is what installs them.

PG_CONFIG ?= pg_config
EXTENSION = gpu_orch
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)

MODULE_big = gpu_orch
C_FILES := $(sort $(wildcard src/*.c src/*/*.c src/*/*/*.c))
H_FILES := $(sort $(wildcard src/*.h src/*/*.h src/*/*/*.h))
OBJS := $(C_FILES:.c=.o)
# The version that the update script starts from.
PREVIOUS = 0.1.0
UPDATE = $(EXTENSION)--$(PREVIOUS)--$(EXTVERSION).sql
DATA_built = $(EXTENSION)--$(EXTVERSION).sql $(UPDATE)

# No warning is accepted. The three exceptions are forced by the server's headers: inline functions
# with parameters that only assertions use and PG_FUNCTION_ARGS; lengthof(), which is unsigned; and
# structs meant to be initialised in part.
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wdeclaration-after-statement \
	-Wshadow=compatible-local -Wimplicit-fallthrough \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CPPFLAGS = -I$(CURDIR)/src $(LIBCURL_CFLAGS) -DGPU_ORCH_VERSION='"$(EXTVERSION)"'
# Points for tests to stop a process at; never in a release.
ifdef INJECT
PG_CPPFLAGS += -DGPU_ORCH_INJECT
endif
# What the server looks up by name is visible, nothing else.
SHLIB_LINK = $(LIBCURL) -lm -Wl,--version-script=gpu_orch.map

REGRESS_FILES := $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS := $(filter install,$(REGRESS_FILES)) $(filter-out install,$(REGRESS_FILES))
ISOLATION := $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=$(EXTENSION)

PROGRAM_DIRS = $(patsubst %/Makefile,%,$(wildcard worker/Makefile sim/Makefile cli/Makefile))
# Its versions differ in what they make of a source; this is Debian 12's.
CLANG_FORMAT ?= clang-format-14
C_SOURCES = $(C_FILES) $(H_FILES) $(sort $(wildcard test/unit/*.[ch] worker/*.[ch] sim/*.[ch] cli/*.[ch]))

.DEFAULT_GOAL := all
WITHOUT_SERVER = programs install-programs uninstall-programs clean-programs test check demo dates load roots \
	bench bench-history bench-retention chaos ddl-storm hardened format format-check

ifneq ($(filter-out $(WITHOUT_SERVER),$(or $(MAKECMDGOALS),all)),)
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs))
SERVER_HEADER := $(wildcard $(shell $(PG_CONFIG) --includedir-server)/postgres.h)
ifeq ($(and $(PGXS),$(SERVER_HEADER)),)
$(error $(PG_CONFIG) knows of no server headers: install postgresql-server-dev-NN, \
	or set PG_CONFIG to the pg_config of the server)
endif
LIBCURL := $(shell pkg-config --libs libcurl)
LIBCURL_CFLAGS := $(shell pkg-config --cflags libcurl)
ifeq ($(LIBCURL),)
$(error pkg-config finds no libcurl: install pkg-config and libcurl4-openssl-dev)
endif
# The bitcode for JIT inlining needs the compiler that the server was built with.
ifeq ($(shell command -v $$(sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)),)
override with_llvm = no
endif
include $(PGXS)

# What was built with other flags, or for another server, is built again. Where things lie does not
# count: a copy of this tree builds nothing that came with it.
FLAGS := $(CC) $(filter-out -I%,$(CPPFLAGS)) $(CFLAGS) $(VERSION) $(configure_args)
LINK_FLAGS := $(filter-out -L%,$(SHLIB_LINK))
ifneq ($(file <.flags),$(FLAGS))
$(file >.flags,$(FLAGS))
endif
ifneq ($(file <.link_flags),$(LINK_FLAGS))
$(file >.link_flags,$(LINK_FLAGS))
endif

$(OBJS) $(OBJS:.o=.bc): $(H_FILES) Makefile .flags
$(shlib): gpu_orch.map .link_flags

# A library with a symbol that nobody defines keeps a server from starting.
all install-lib-shared: .linked
.linked: $(shlib) src/undefined_symbols
	src/undefined_symbols $(shlib) "$(shell $(PG_CONFIG) --bindir)/postgres"
	@touch $@

EXTRA_CLEAN = .flags .link_flags .linked
clean: clean-programs
else
check:
	@test/run --here check
endif

# The folder is a prerequisite too, so that a part that was removed or renamed is noticed.
INSTALL_PARTS = $(sort $(wildcard sql/extension/*.sql))
$(EXTENSION)--$(EXTVERSION).sql: $(INSTALL_PARTS) sql/extension $(EXTENSION).control Makefile
	(printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	 cat $(INSTALL_PARTS)) > $@.tmp
	mv $@.tmp $@

NEXT = sql/extension/next
$(UPDATE): $(INSTALL_PARTS) sql/extension $(NEXT)/upgrade.sql $(NEXT)/assemble.awk Makefile
	(printf '%s\n' '\echo Use "ALTER EXTENSION $(EXTENSION) UPDATE" to load this file. \quit'; \
	 awk -f $(NEXT)/assemble.awk $(NEXT)/upgrade.sql $(INSTALL_PARTS)) > $@.tmp
	mv $@.tmp $@

programs:
	+@set -e; for dir in $(PROGRAM_DIRS); do $(MAKE) -C $$dir all; done

install-programs:
	+@set -e; for dir in $(PROGRAM_DIRS); do $(MAKE) -C $$dir install; done

uninstall-programs:
	+@set -e; for dir in $(PROGRAM_DIRS); do $(MAKE) -C $$dir uninstall; done

clean-programs:
	+@set -e; for dir in $(PROGRAM_DIRS) $(patsubst %/Makefile,%,$(wildcard test/unit/Makefile)); \
		do $(MAKE) -C $$dir clean; done

test:
	@test/run

demo:
	@test/demo

dates:
	@test/run dates

load:
	@test/load

roots:
	@test/roots

ifneq ($(wildcard bench/run),)
.PHONY: bench bench-history bench-retention
bench:
	@bench/run

bench-history:
	@bench/history

bench-retention:
	@bench/retention
endif

ifneq ($(wildcard test/chaos/run),)
.PHONY: chaos
chaos:
	@test/chaos/run
endif

ddl-storm:
	@test/storm/run

hardened:
	@test/hardened

format:
	$(CLANG_FORMAT) -i $(C_SOURCES)

format-check:
	$(CLANG_FORMAT) --dry-run --Werror $(C_SOURCES)

.PHONY: programs install-programs uninstall-programs clean-programs test check demo dates load roots ddl-storm hardened format format-check
