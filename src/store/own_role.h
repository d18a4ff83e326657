/*
 * store/own_role.h
 *	  A role that pods log in as does not change itself.
 */
#ifndef GPU_ORCH_STORE_OWN_ROLE_H
#define GPU_ORCH_STORE_OWN_ROLE_H

extern void store_own_role_init(void);

#endif
